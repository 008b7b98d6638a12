"""Data preparation: any source of labelled photos becomes ``train/``, ``validation/`` and ``test/`` of class folders.

Modules in reading order:
  sources          find and list the photos of SOURCE, downloaded and extracted where needed
  download         resumable download with a checksum
  class_folders    list a folder of class folders; `annotations`: a CSV, an .lst, SageMaker's or Polyvore's JSON
  listing          the listed photos, their labels and splits
  inspection       read, check and resize every photo, in several processes
  defects          what can be wrong with a photo, and what is done about it
  selection        duplicates, caps, balance, and the split into train, validation and test
  near_duplicates  photos that look alike although their bytes differ
  output           class folders and tar shards, staged beside the output directory and renamed when finished
  report           tables for people and programs, and contact sheets of every class and of near duplicates
  prepare          all of the above in order, as `prepare_data.py` runs it
  upload           incremental upload of a folder to S3, as `upload_data.py` runs it
  sample_data      a small data set of handwritten digits
"""
