"""Counts the containers that are created, and tells each how many were before it."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Registration
from wit_world.imports import adjust_env, kv, log
from wit_world.imports.types import Container, Failure, Refusal, Refusal_Conflict

KEY = "created"


class Lifecycle(exports.Lifecycle):
    def configure(self) -> Registration:
        return Registration(["create", "created"])

    def handle(self, stage: str, container: Container) -> None:
        match stage:
            case "create":
                tell(created())
            case "created":
                remember(created() + 1)


def created() -> int:
    return int(kv.get(KEY) or b"0")


def tell(count: int) -> None:
    try:
        adjust_env.set("LOCULE_COUNT", str(count))
    except Err as error:
        raise Err(Failure(0, f"cannot set LOCULE_COUNT: {reason(error.value)}"))


def remember(count: int) -> None:
    try:
        kv.set(KEY, str(count).encode())
    except Err as error:
        raise Err(Failure(0, f"cannot store the count: {error.value}"))
    log.emit(log.Level.INFO, f"containers created: {count}")


def reason(refusal: Refusal) -> str:
    match refusal:
        case Refusal_Conflict(plugin):
            return f"the plugin {plugin} has set it before"
        case _:
            return refusal.value
