"""Models with replicas of their own."""

from __future__ import annotations

from rlplatform.http_client.answers import Deployment
from rlplatform.http_client.plans import Call, Plan, planned
from rlplatform.http_client.requests import Requests, given, segment


class DeploymentRequests(Requests):
    """Models with replicas of their own."""

    @planned
    def deploy_model(
        self,
        model_name: str,
        *,
        replicas: int = 1,
        cpus: float = 1.0,
        alias: str | None = None,
        version: int | None = None,
    ) -> Plan[Deployment]:
        """Give a model replicas of its own, or change those that it has; `get_deployment` says when they run.

        Args:
            model_name: The model.
            replicas: From 1.
            cpus: Booked by each replica.
            alias: Answers for the bare name, also after it has moved.
            version: Answers for the bare name. Neither this nor `alias`: the champion, else the newest.
        """
        body = {"replicas": replicas, "cpus": cpus, **given(alias=alias, version=version)}
        return self._ask(Deployment, "POST", _path(model_name), json=body, repeatable=True)

    @planned
    def list_deployments(self) -> Plan[list[Deployment]]:
        """Return every deployment."""
        answer = yield from self._ask(dict[str, list[Deployment]], "GET", "/api/v1/deployments")
        return answer["deployments"]

    @planned
    def get_deployment(self, model_name: str) -> Plan[Deployment]:
        """Return a model's deployment."""
        return self._ask(Deployment, "GET", _path(model_name))

    @planned
    def remove_deployment(self, model_name: str) -> Plan[None]:
        """End a model's deployment; the model stays, and the service itself answers for it."""
        return self._do(Call("DELETE", _path(model_name)))


def _path(model_name: str) -> str:
    return f"/api/v1/models/{segment(model_name)}/deploy"
