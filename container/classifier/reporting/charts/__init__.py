"""Figures of the report for plotly.js. Colors are given as ``@name`` and resolved by the page in its theme."""
