"""Each alert is documented, names metrics that exist, fires and clears."""

import re
from pathlib import Path

import pytest
import yaml

from servers.local.observe import prometheus
from tests.support import tools

ROOT = Path(__file__).parents[2]
PROOFS = Path(__file__).with_name("alerts_test.yaml")
RULES = yaml.safe_load(prometheus.RULES.read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_where_help_is(alert):
    annotations = ALERTS[alert]["annotations"]
    assert annotations["summary"].endswith(".")
    assert ALERTS[alert]["labels"]["severity"] in ("warning", "critical")
    document, _, anchor = annotations["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / document).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_runbook_has_no_heading_of_an_alert_that_is_gone():
    text = (ROOT / "docs/runbook-alerts.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(ALERTS)


def test_each_alert_has_a_proof_that_it_fires_and_clears():
    proven = {}
    for proof in yaml.safe_load(PROOFS.read_text())["tests"]:
        seen = [bool(check["exp_samples"]) for check in proof["promql_expr_test"]]
        assert seen[-1] is False, f"{proof['name']} clears at the end"
        proven.setdefault(proof["name"], set()).update(seen)
    assert proven == {alert: {True, False} for alert in ALERTS}


@pytest.mark.tools
def test_the_rules_are_valid():
    said = tools.run("promtool", "check", "rules", prometheus.RULES)
    assert f"{len(ALERTS)} rules found" in said


@pytest.mark.tools
def test_each_alert_fires_and_clears():
    assert "SUCCESS" in tools.run("promtool", "test", "rules", PROOFS)


@pytest.mark.tools
@pytest.mark.parametrize("never_or_always", ["vector(1) > 2", "vector(1)"])
def test_the_proof_finds_an_alert_that_never_fires_and_one_that_never_clears(
    tmp_path, never_or_always
):
    for alert in ALERTS:
        groups = [
            {
                "name": "mutant",
                "rules": [rule | {"expr": never_or_always} if name == alert else rule
                          for name, rule in ALERTS.items()],
            }
        ]  # fmt: skip
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
        proofs = yaml.safe_load(PROOFS.read_text()) | {"rule_files": ["rules.yaml"]}
        proofs["tests"] = [proof for proof in proofs["tests"] if proof["name"] == alert]
        (tmp_path / "proofs.yaml").write_text(yaml.safe_dump(proofs))
        with pytest.raises(AssertionError, match="FAILED"):
            tools.run("promtool", "test", "rules", tmp_path / "proofs.yaml")
