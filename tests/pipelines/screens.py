"""What a person sees of runs and versions: our page, Prefect's and MLflow's, in a real Chromium.

Each screen must say what it is there for, and none may ask another machine for anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.pipelines.unattended import Site

#: A narrow phone, and a laptop.
PHONE, LAPTOP = 390, 1440
PATIENCE_MS = 30_000
#: Paths of our own server that must answer, and fit on a phone.
PAGES = {
    "home": "/",
    "history": "/history",
    "versions": "/versions",
    "version": "/versions/{version}",
    "report": "/v1/versions/{version}/report",
    "compare": "/compare?a=1&b={version}",
    "episode": "/episode?id=client-0-0",
    "docs": "/docs",
}


@dataclass
class Screens:
    """One browser over the screens of a site; what is missing is in `wrong`."""

    site: Site
    pictures: Path
    wrong: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def look(self, run_id: str, version: int) -> list[str]:
        """Look at every screen of one finished run; returns what is wrong with them."""
        from playwright.sync_api import sync_playwright

        self.pictures.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            try:
                self._ours(browser, version)
                self._prefect(browser, run_id, version)
                self._mlflow(browser, run_id, version)
            finally:
                browser.close()
        abroad = {host for host in self.asked if not host.startswith("127.0.0.1:")}
        self.wrong += [f"a screen asked {host}" for host in sorted(abroad)]
        return self.wrong

    def _ours(self, browser: Any, version: int) -> None:
        for width in (PHONE, LAPTOP):
            page = self._page(browser, width)
            page.goto(f"{self.site.url}/sign-in")
            self._shot(page, f"ours-sign-in-{width}")
            page.get_by_role("button", name="Continue as").click()
            for name, path in {**PAGES, **self._of_policies()}.items():
                path = path.format(version=version)
                answer = page.goto(self.site.url + path)
                if answer.status != 200:
                    self.wrong.append(f"{path} answers {answer.status}")
                wide = page.locator("html").evaluate("e => e.scrollWidth")
                if wide > width:
                    self.wrong.append(f"{path} is {wide} px wide on a screen of {width}")
                self._shot(page, f"ours-{name}-{width}")

    def _of_policies(self) -> dict[str, str]:
        """The pages of the policies, where there are several."""
        found = httpx.get(f"{self.site.url}/v1/policies", trust_env=False).json()["policies"]
        names = [each["policy"] for each in found]
        return {f"policy-{name}": f"/policies/{name}" for name in names} if len(names) > 1 else {}

    def _prefect(self, browser: Any, run_id: str, version: int) -> None:
        ui, page = self.site.prefect_url.removesuffix("/api"), self._page(browser, LAPTOP)
        flow_run = self._flow_run(run_id)
        self._see(page, f"{ui}/runs", run_id, name="prefect-runs")
        where = f"{ui}/runs/flow-run/{flow_run}"
        self._see(page, where, run_id, "evolve", "gate", name="prefect-run")
        page.get_by_text("Artifacts", exact=True).click()
        self._says(page, f"{run_id}-verdict", f"{run_id}-progress", name="prefect-artifacts")
        found = httpx.post(
            f"{self.site.prefect_url}/artifacts/filter",
            json={"artifacts": {"key": {"any_": [f"{run_id}-verdict"]}}},
            trust_env=False,
        ).json()
        at = f"{ui}/artifacts/artifact/{found[0]['id']}"
        self._see(page, at, f"Version {version}", "promotion report", name="prefect-verdict")
        report = page.get_by_role("link", name="promotion report").get_attribute("href")
        if httpx.get(str(report), trust_env=False).status_code != 200:
            self.wrong.append(f"Prefect's link to the report, {report}, does not answer")
        deployment = httpx.get(
            f"{self.site.prefect_url}/deployments/name/evolve-and-gate/run", trust_env=False
        ).json()["id"]
        form = f"{ui}/deployments/deployment/{deployment}/run"
        self._see(page, form, "params", "start", "approve", "policy", name="prefect-form")

    def _flow_run(self, run_id: str) -> str:
        """The flow run that brought it to its end; one that was killed before has the same name."""
        done = {"type": {"any_": ["COMPLETED"]}}
        query = {"flow_runs": {"name": {"any_": [run_id]}, "state": done}}
        answer = httpx.post(
            f"{self.site.prefect_url}/flow_runs/filter", json=query, trust_env=False
        )
        return str(answer.json()[0]["id"])

    def _mlflow(self, browser: Any, run_id: str, version: int) -> None:
        from mlflow import MlflowClient

        client, page = MlflowClient(self.site.mlflow_url), self._page(browser, LAPTOP)
        ui = f"{self.site.mlflow_url}/#"
        found = [
            (experiment, run)
            for experiment in client.search_experiments()
            for run in client.search_runs([experiment.experiment_id])
            if run.info.run_name == run_id
        ]
        [(experiment, run)] = found
        at = f"{ui}/experiments/{experiment.experiment_id}"
        self._see(page, f"{at}/runs", run_id, experiment.name, name="mlflow-runs")
        self._see(page, f"{at}/runs/{run.info.run_id}", run_id, name="mlflow-run")
        charts = f"{at}/runs/{run.info.run_id}/model-metrics"
        curves = ("evolution/best", "evolution/mean")
        self._see(page, charts, *curves, name="mlflow-curves")
        if not page.locator(".js-plotly-plot, .plotly, canvas").count():
            self.wrong.append(f"no curve is drawn at {charts}")
        model = "srghn-policy"
        self._see(page, f"{ui}/models/{model}", model, "Version", name="mlflow-model")

    def _see(self, page: Any, url: str, *said: str, name: str) -> None:
        """Open a screen, and wait for all that it must say."""
        page.goto(url)
        self._says(page, *said, name=name)

    def _says(self, page: Any, *said: str, name: str) -> None:
        for text in said:
            try:
                page.get_by_text(text).first.wait_for(timeout=PATIENCE_MS)
            except Exception as error:  # noqa: BLE001  a timeout, of Playwright's own kind
                self.wrong.append(f"{name}: {text!r} is not on {page.url} ({type(error).__name__})")
        page.wait_for_timeout(1500)
        self._shot(page, name)

    def _page(self, browser: Any, width: int) -> Any:
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        page.on("request", lambda request: self.asked.update(_host(request.url)))
        return page

    def _shot(self, page: Any, name: str) -> None:
        page.screenshot(path=self.pictures / f"{name}.png", full_page=name.startswith("ours"))


def _host(url: str) -> Iterator[str]:
    if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
        yield urlsplit(url).netloc
