"""Check that an AWS account has what the commands need, before anything is created. Nothing is changed.

Checked are your identity, the execution role and its trust policy, buckets and their region, quotas of the instance
types, the image's architecture and media type, and access to AWS's price list. Each line begins with ✓, with ✗ and what
to do, or with ? if it could not be checked. The exit code is 1 if there is a ✗. docs/aws.md has the policies.

Examples:
  .venv/bin/python scripts/check_aws.py s3://my-bucket --role SageMakerRole
  .venv/bin/python scripts/check_aws.py s3://my-bucket --instance ml.g5.2xlarge --instances 2 --spot --region eu-west-1
"""

import argparse
import os
import sys
from collections.abc import Sequence

from launch.cli import DEFAULTS, create_parser, run_command
from launch.endpoint.options import DEFAULT_INSTANCE as ENDPOINT_INSTANCE
from launch.platform.account import AccountOptions, Mark, check_account
from launch.transform import DEFAULT_INSTANCE as TRANSFORM_INSTANCE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("check_aws", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("check_aws.py", __doc__)
    parser.add_argument("place", nargs="*", metavar="S3_URI", help="s3://… that your jobs read or write")
    parser.add_argument("--role", metavar="NAME", help="execution role, name or ARN (default: $SAGEMAKER_ROLE)")
    parser.add_argument("--image", metavar="URI", help="the image (default: $IMAGE_URI)")
    parser.add_argument(
        "--instance", default=DEFAULTS.instance_type, metavar="TYPE", help="for training (default: %(default)s)"
    )
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="training at the same time (default: 1)")
    parser.add_argument("--spot", action="store_true", help="check the quota of spot capacity")
    parser.add_argument("--keep-alive", action="store_true", help="check the quota of warm pools")
    parser.add_argument(
        "--endpoint-instance", default=ENDPOINT_INSTANCE, metavar="TYPE", help="for endpoints (default: %(default)s)"
    )
    parser.add_argument(
        "--transform-instance",
        default=TRANSFORM_INSTANCE,
        metavar="TYPE",
        help="for batch transform (default: %(default)s)",
    )
    parser.add_argument("--region", metavar="NAME", help="AWS region (default: that of the AWS CLI)")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    account = AccountOptions(
        region=options.region,
        role=options.role,
        image=options.image or os.environ.get("IMAGE_URI"),
        places=options.place,
        quotas=_quotas(options),
        instance_type=options.instance,
    )
    has_failed = False
    for finding in check_account(account):
        print(finding, flush=True)
        has_failed = has_failed or finding.mark is Mark.FAILED
    return int(has_failed)


def _quotas(options: argparse.Namespace) -> dict[str, int]:
    usage = "spot training job usage" if options.spot else "training job usage"
    needed = {f"{options.instance} for {usage}": options.instances}
    if options.keep_alive:
        needed[f"{options.instance} for training warm pool usage"] = options.instances
    needed[f"{options.endpoint_instance} for endpoint usage"] = 1
    needed[f"{options.transform_instance} for transform job usage"] = 1
    return needed


if __name__ == "__main__":
    sys.exit(main())
