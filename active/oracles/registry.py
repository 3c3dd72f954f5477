"""The oracles by their names."""

from collections.abc import Callable

from yacs.config import CfgNode

from dassl.utils.registry import Registry

ORACLES = Registry("oracle", "ACTIVE", home="active.oracles",
                   facts={"asks_people": bool, "check": Callable, "restore": Callable})


def asks_people(node: CfgNode) -> bool:
    """Tell whether the oracle of an `ACTIVE` node asks people, so that labels may be unknown at first."""
    return ORACLES[node.get("ORACLE", "labels")].facts.get("asks_people", False)  # older records lack the key
