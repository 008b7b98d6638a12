"""Whatever the user has → ``train/``, ``validation/`` and ``test/`` of class folders, every photo checked.

In reading order:
  sources      what SOURCE is: download, archives, class_folders, tables, manifests, polyvore → a listing
  listing      the photos to look at: place, class and, where SOURCE has its own, split
  inspection   one photo: read once, checked, resized, put aside; checking does all of them side by side
  defects      what can be wrong, and what is done about it
  selection    copies, caps and balance; splitting sets validation and test apart
  placing      the chosen photos → class folders; shards → tar files
  report       tables for people and for programs; sheet is the picture
  workplace    OUT: told apart when finished, unfinished and somebody else's
  prepare      composes the above
"""
