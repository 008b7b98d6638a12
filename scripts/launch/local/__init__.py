"""SageMaker on this machine: the API's own requests, answered by processes and files under one folder.

A job and an endpoint are processes of their own, which outlive the command that started them; what is known of them
lies in JSON files, so that any other command finds them.
"""
