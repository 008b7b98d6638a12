"""Local implementation of the SageMaker API: the same requests, run as processes or containers on this machine.

Jobs and endpoints are processes that outlive the command that created them. Their state is kept in JSON files under one
folder, where any other command finds it.
"""
