"""Figures → what plotly.js draws. A colour is ``@name``, which the page looks up in its theme, light or dark."""
