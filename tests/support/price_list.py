"""Products as AWS's price list API has them, which moto lacks."""

import json


def product(usage: str, *amounts: str, unit: str = "Hrs") -> str:
    """Return a product as the API has it."""
    terms = {f"A.{number}": {"unit": unit, "pricePerUnit": {"USD": one}} for number, one in enumerate(amounts)}
    return json.dumps(
        {
            "product": {"productFamily": "ML Instance", "attributes": {"usagetype": usage, "regionCode": "eu-west-1"}},
            "serviceCode": "AmazonSageMaker",
            "terms": {"OnDemand": {"A": {"priceDimensions": terms}}},
        }
    )
