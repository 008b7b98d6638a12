"""Data preparation: any source of labelled photos becomes ``train/``, ``validation/`` and ``test/`` of class folders.

Modules in reading order:
  sources        find and list the photos of SOURCE, downloaded and extracted where needed
  download       resumable download with a checksum
  class_folders  list a folder of class folders; `tables`: a CSV or .lst; `manifests`: SageMaker's and Polyvore's JSON
  listing        the listed photos, their labels and splits
  inspection     read, check and resize every photo, in several processes
  defects        what can be wrong with a photo, and what is done about it
  selection      duplicates, caps, balance, and the split into train, validation and test
  writing        class folders and tar shards of the selected photos
  report         tables for people and programs; `contact_sheet`: a picture of every class
  output_dir     the output directory: staged beside itself, renamed when finished
  prepare        all of the above in order, as `prepare_data.py` runs it
  upload         incremental upload of a folder to S3, as `upload_data.py` runs it
  sample_data    a small data set of handwritten digits
"""
