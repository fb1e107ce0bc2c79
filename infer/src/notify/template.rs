//! Messages of a form that the operator chose: minijinja templates over the incidents of one group.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};

/// Steps that a template may take: a loop over ten thousand incidents, and no endless one.
const FUEL: u64 = 2_000_000;
const NAME: &str = "message";

/// A template that was tried out.
#[derive(Clone)]
pub struct Template(Arc<Environment<'static>>);

impl Template {
    /// Reads a template and renders a sample by it, so that its mistakes are found at start.
    ///
    /// # Errors
    /// Where it cannot be read, or fails on the sample.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // The text is for a machine that the operator knows: `tojson` escapes where JSON is meant.
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .add_template_owned(NAME, text)
            .with_context(|| format!("the template {} is wrong", path.display()))?;
        let template = Self(Arc::new(environment));
        let sample: serde_json::Value = serde_json::from_str(SAMPLE).context("the sample is no JSON")?;
        template
            .render("sample", &BTreeMap::new(), &[sample])
            .with_context(|| format!("the template {} fails on a sample", path.display()))?;
        Ok(template)
    }

    /// Renders the events of one group; `incidents` are their CloudEvents.
    ///
    /// # Errors
    /// Where the template asks for what an incident does not have.
    pub fn render(
        &self,
        receiver: &str,
        group: &BTreeMap<String, String>,
        incidents: &[serde_json::Value],
    ) -> anyhow::Result<String> {
        let template = self.0.get_template(NAME)?;
        let firing = incidents.iter().any(|event| event["data"]["status"] != "resolved");
        let status = if firing { "firing" } else { "resolved" };
        let (group, events) = (Value::from(Serde(group)), Value::from(Serde(incidents)));
        Ok(template.render(context! { receiver, group, status, events })?)
    }
}

const SAMPLE: &str = r#"{
  "specversion": "1.0", "id": "msg_00", "source": "faultline://node/node-1",
  "type": "io.faultline.incident.firing", "subject": "pod/shop/web-0", "time": "2026-01-01T00:00:00Z",
  "datacontenttype": "application/json",
  "data": {
    "incident": "00-0", "fingerprint": "00", "status": "firing", "suppression": "storm", "change": "fired",
    "repetition": 0, "severity": "critical", "mode": "dry-run", "node": "node-1",
    "target": {"kind": "pod", "namespace": "shop", "pod": "web-0"},
    "fault": "packet-loss", "confidence": 0.93, "runner_up": "normal", "runner_up_confidence": 0.05,
    "model": {"name": "random-forest", "hash": "00"}, "opened": "2026-01-01T00:00:00Z",
    "window": {"start": "2026-01-01T00:00:00Z", "seconds": 5.0}, "rows": {"named_it": 3, "answered": 4},
    "flow": {"id": "00000000", "five_tuple": "192.0.2.1:40000->192.0.2.2:80:6"},
    "features": [{"feature": "retransmission_rate", "value": 0.2, "baseline": 0.0, "threshold": 0.05, "weight": 0.8}],
    "recording": {"file": "run.mcap", "at": "2026-01-01T00:00:00Z"},
    "action": {"name": "restart", "idempotency_key": "act_00", "expires": "2026-01-01T00:05:00Z",
               "guard": {"allowed": false, "reason": "left alone"}}
  }
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Template> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Template::load(file.path())
    }

    #[test]
    fn a_template_makes_json() {
        let template = load(
            r#"{"text": {{ (events[0].data.fault ~ " at " ~ events[0].subject) | tojson }}, "n": {{ events | length }}}"#,
        )
        .unwrap();
        let mut event: serde_json::Value = serde_json::from_str(SAMPLE).unwrap();
        event["subject"] = "\"quoted\"".into();
        let text = template.render("ops", &BTreeMap::new(), &[event]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json, serde_json::json!({"text": "packet-loss at \"quoted\"", "n": 1}));
    }

    #[test]
    fn a_wrong_or_endless_template_is_found_at_start() {
        assert!(load("{{ events[0].data.colour }}").is_err());
        assert!(load("{% for").is_err());
        assert!(
            load("{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}").is_err()
        );
    }
}
