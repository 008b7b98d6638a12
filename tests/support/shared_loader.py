"""One loader of botocore's descriptions of services for all sessions of a process.

A session would read megabytes of JSON with a loader of its own; importing this module makes them share one.
"""

from functools import cache

import botocore.session

botocore.session.create_loader = cache(botocore.session.create_loader)
