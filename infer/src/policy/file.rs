//! The policy file: TOML, checked as a whole before anything of it is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use event::Label;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Mode, Severity};
use crate::deliver::{ClientSettings, Guard, Limits};
use crate::incident::{IncidentSettings, StormSettings};
use crate::notify::{SigningKeys, Template};

/// Namespaces in which nothing is ever done, unless the file names others.
const DENIED: &[&str] = &["kube-system"];

/// What an operator wants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub mode: Mode,
    pub incident: IncidentSettings,
    pub storm: StormSettings,
    /// Severities other than the usual ones, by fault.
    #[serde(deserialize_with = "severities")]
    pub severity: BTreeMap<Label, Severity>,
    pub actions: ActionBounds,
    pub receivers: BTreeMap<String, ReceiverSettings>,
    /// The first one that fits an incident is taken.
    pub routes: Vec<Route>,
}

/// Bounds of what is done; all of them hold at once.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActionBounds {
    /// Time after an action in which its target is left alone; doubles with each attempt.
    #[serde(deserialize_with = "duration")]
    pub cooldown: Duration,
    /// Actions for one target and fault; after them it is in quarantine until a person clears it.
    pub attempts: u32,
    /// A target without an action for this long is one that never had any. Does not end a quarantine.
    #[serde(deserialize_with = "duration")]
    pub forget: Duration,
    /// An action that could not be delivered by then is not delivered any more.
    #[serde(deserialize_with = "duration")]
    pub expires: Duration,
    pub per_workload_per_hour: u32,
    pub per_node_per_hour: u32,
    /// Namespaces in which something may be done; `*` is any.
    pub namespaces: Vec<String>,
    /// Namespaces in which nothing is done, whatever is allowed.
    pub deny_namespaces: Vec<String>,
    /// Whether something may be done about targets that are no pods: endpoints and the node itself.
    pub hosts: bool,
    /// Targets that nothing is done about, as incidents name them (`endpoint/192.0.2.1:443/6`).
    pub deny_targets: Vec<String>,
}

impl Default for ActionBounds {
    fn default() -> Self {
        Self {
            cooldown: Duration::from_secs(600),
            attempts: 2,
            forget: Duration::from_secs(6 * 3600),
            expires: Duration::from_secs(300),
            per_workload_per_hour: 2,
            per_node_per_hour: 10,
            namespaces: Vec::new(),
            deny_namespaces: DENIED.iter().map(|name| (*name).to_owned()).collect(),
            hosts: false,
            deny_targets: Vec::new(),
        }
    }
}

/// What a receiver is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    #[default]
    Cloudevents,
    Alertmanager,
    Template,
}

/// Where signing keys are; never the keys themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// Files with one `whsec_...` a line, the current key first.
    pub files: Vec<PathBuf>,
    /// Environment variables that hold one each.
    pub env: Vec<String>,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiverSettings {
    pub url: String,
    /// A file that holds the URL, where the URL is a secret.
    pub url_file: Option<PathBuf>,
    pub format: Format,
    /// With format `template`: a minijinja template, and the media type of what it makes.
    pub template: Option<PathBuf>,
    pub content_type: String,
    pub secrets: Secrets,
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub allow_link_local: bool,
    /// Messages that may wait.
    pub queue: u64,
    /// Age at which a notification becomes a dead letter.
    #[serde(deserialize_with = "duration")]
    pub give_up: Duration,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            url: String::new(),
            url_file: None,
            format: Format::default(),
            template: None,
            content_type: "application/json".to_owned(),
            secrets: Secrets::default(),
            timeout: Duration::from_secs(10),
            ca: None,
            certificate: None,
            key: None,
            allow_link_local: false,
            queue: limits.queue,
            give_up: limits.give_up,
        }
    }
}

/// Which incidents go where, and what is done about them. An empty list fits everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    #[serde(deserialize_with = "labels")]
    pub faults: Vec<Label>,
    pub namespaces: Vec<String>,
    pub severities: Vec<Severity>,
    pub receivers: Vec<String>,
    /// Name of what is to be done; without it the route only tells.
    pub action: Option<String>,
    /// Goes less far than the file's mode; never further.
    pub mode: Option<Mode>,
    /// Tells again of what still fires after this long; never repeats an action.
    #[serde(deserialize_with = "optional_duration")]
    pub repeat: Option<Duration>,
    /// Labels by which the incidents of one window go into one message (formats `alertmanager` and `template`).
    pub group_by: Vec<String>,
    /// Goes on to later routes as well.
    #[serde(rename = "continue")]
    pub goes_on: bool,
}

/// One thing that is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

/// Why a policy is not used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot read the policy {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the policy {} is not valid TOML of a policy: {source}", path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("the policy {} has {} problems:\n  {}", path.display(), problems.len(), listed(problems))]
    Problems { path: PathBuf, problems: Vec<Problem> },
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.0.as_str()).collect::<Vec<_>>().join("\n  ")
}

impl Policy {
    /// Reads and checks a policy; paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`PolicyError`], with everything that is wrong at once.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
        let mut policy: Self = toml::from_str(&text)
            .map_err(|source| PolicyError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for receiver in policy.receivers.values_mut() {
            receiver.resolve(folder);
        }
        let problems = policy.problems();
        if problems.is_empty() {
            Ok(policy)
        } else {
            Err(PolicyError::Problems { path: path.to_owned(), problems })
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |text: String| problems.push(Problem(text));
        self.incident.problems().into_iter().for_each(|text| say(format!("[incident] {text}")));
        self.storm.problems().into_iter().for_each(|text| say(format!("[storm] {text}")));
        if self.actions.attempts == 0 {
            say("[actions] attempts = 0: leave `action` out of the routes to do nothing".to_owned());
        }
        if self.actions.expires.is_zero() {
            say("[actions] expires = 0: every action would be late".to_owned());
        }
        for (name, receiver) in &self.receivers {
            receiver.problems().into_iter().for_each(|text| say(format!("[receivers.{name}] {text}")));
        }
        if self.routes.is_empty() {
            say("there is no [[routes]]: nobody would be told of anything".to_owned());
        }
        for (place, route) in self.routes.iter().enumerate() {
            self.check_route(route)
                .into_iter()
                .for_each(|text| say(format!("[[routes]] number {}: {text}", place + 1)));
        }
        problems
    }

    fn check_route(&self, route: &Route) -> Vec<String> {
        let mut problems = Vec::new();
        if route.receivers.is_empty() {
            problems.push("names no receiver".to_owned());
        }
        for name in &route.receivers {
            let Some(receiver) = self.receivers.get(name) else {
                problems.push(format!("receiver `{name}` is not defined"));
                continue;
            };
            if route.action.is_some() && self.mode_of(route) > Mode::DryRun {
                if !receiver.is_authenticated() {
                    problems.push(format!(
                        "mode {} asks `{name}` for actions, which must be signed (secrets) or sent over mutual TLS \
                         (https, certificate and key)",
                        self.mode_of(route).name()
                    ));
                }
                if receiver.format != Format::Cloudevents {
                    problems.push(format!("actions are CloudEvents, and `{name}` has another format"));
                }
            }
        }
        for label in &route.group_by {
            if !["fault", "severity", "node", "target", "namespace", "pod"].contains(&label.as_str()) {
                problems.push(format!(
                    "group_by `{label}`: one of fault, severity, node, target, namespace, pod"
                ));
            }
        }
        problems
    }

    /// How far a route goes: the lesser of its own mode and the file's.
    pub fn mode_of(&self, route: &Route) -> Mode {
        route.mode.map_or(self.mode, |mode| mode.min(self.mode))
    }

    /// How grave a fault is, by the file or as usual.
    pub fn severity_of(&self, label: Label) -> Severity {
        self.severity.get(&label).copied().unwrap_or_else(|| Severity::usual(label))
    }

    /// The routes that an incident takes.
    pub fn routes_of(&self, label: Label, namespace: &str) -> Vec<usize> {
        let severity = self.severity_of(label);
        let mut taken = Vec::new();
        for (place, route) in self.routes.iter().enumerate() {
            let fits = (route.faults.is_empty() || route.faults.contains(&label))
                && (route.severities.is_empty() || route.severities.contains(&severity))
                && (route.namespaces.is_empty()
                    || route.namespaces.iter().any(|name| name == "*" || name == namespace));
            if fits {
                taken.push(place);
                if !route.goes_on {
                    break;
                }
            }
        }
        taken
    }
}

impl ReceiverSettings {
    fn resolve(&mut self, folder: &Path) {
        let files =
            [&mut self.url_file, &mut self.template, &mut self.ca, &mut self.certificate, &mut self.key];
        for path in files.into_iter().flatten().chain(&mut self.secrets.files) {
            *path = folder.join(&*path);
        }
    }

    fn is_authenticated(&self) -> bool {
        let is_signed = !self.secrets.files.is_empty() || !self.secrets.env.is_empty();
        let is_mutual = self.certificate.is_some()
            && self.key.is_some()
            && self.read_url().is_ok_and(|url| url.starts_with("https://"));
        is_signed || is_mutual
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self.read_url() {
            Ok(url) => {
                let guard = Guard { allow_link_local: self.allow_link_local };
                problems.extend(guard.check_url(&url).err().map(|error| error.to_string()));
            }
            Err(problem) => problems.push(problem),
        }
        problems.extend(self.keys().err());
        match (self.format, &self.template) {
            (Format::Template, None) => {
                problems.push("format template needs `template = \"FILE\"`".to_owned())
            }
            (Format::Template, Some(path)) => {
                problems.extend(Template::load(path).err().map(|error| format!("{error:#}")));
            }
            (_, Some(_)) => problems.push("`template` is for format template".to_owned()),
            (_, None) => {}
        }
        if self.certificate.is_some() != self.key.is_some() {
            problems.push("`certificate` and `key` go together".to_owned());
        }
        for path in [&self.ca, &self.certificate, &self.key].into_iter().flatten() {
            if let Err(error) = std::fs::metadata(path) {
                problems.push(format!("{}: {error}", path.display()));
            }
        }
        if self.queue == 0 {
            problems.push("queue = 0: nothing could ever wait".to_owned());
        }
        problems
    }

    fn read_url(&self) -> Result<String, String> {
        match &self.url_file {
            Some(_) if !self.url.is_empty() => Err("`url` and `url_file` exclude each other".to_owned()),
            Some(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("url_file {}: {error}", path.display())),
            None if self.url.is_empty() => Err("has no `url`".to_owned()),
            None => Ok(self.url.clone()),
        }
    }

    /// The signing keys, read from where they are.
    ///
    /// # Errors
    /// What is wrong, never with a key in it.
    pub fn keys(&self) -> Result<SigningKeys, String> {
        let mut texts = Vec::new();
        for path in &self.secrets.files {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            texts.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        }
        for name in &self.secrets.env {
            texts.push(std::env::var(name).map_err(|_| format!("the environment has no {name}"))?);
        }
        if texts.is_empty() && self.secrets != Secrets::default() {
            return Err("the secrets hold no key".to_owned());
        }
        SigningKeys::parse(texts.iter().map(String::as_str)).map_err(|error| error.to_string())
    }

    /// How it is reached.
    ///
    /// # Errors
    /// Where its URL cannot be read.
    pub fn client(&self) -> Result<ClientSettings, String> {
        Ok(ClientSettings {
            url: self.read_url()?,
            timeout: Some(self.timeout),
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            allow_link_local: self.allow_link_local,
        })
    }

    pub fn limits(&self) -> Limits {
        Limits { give_up: self.give_up, queue: self.queue, ..Limits::default() }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("`{text}`: {error}; write it like 30s, 10m or 4h")))
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Label>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

fn severities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Label, Severity>, D::Error> {
    let named = BTreeMap::<String, Severity>::deserialize(deserializer)?;
    named
        .into_iter()
        .map(|(name, severity)| Ok((name.parse().map_err(D::Error::custom)?, severity)))
        .collect()
}

#[cfg(test)]
mod tests {
    use event::Fault;

    use super::*;

    fn load(text: &str) -> Result<Policy, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        Policy::load(&path).map_err(|error| error.to_string())
    }

    const OPS: &str = "[receivers.ops]\nurl = \"http://127.0.0.1:9/\"\nsecrets.files = [\"key\"]\n";

    #[test]
    fn a_policy_routes_by_fault_namespace_and_severity() {
        let policy = load(&format!(
            "mode = \"approve\"\n[severity]\npacket-loss = \"critical\"\n{OPS}
             [[routes]]\nfaults = [\"dns-failures\"]\nnamespaces = [\"shop\"]\nreceivers = [\"ops\"]\naction = \"restart\"
             mode = \"enforce\"\ncontinue = true
             [[routes]]\nseverities = [\"critical\"]\nreceivers = [\"ops\"]\nrepeat = \"4h\"
             [[routes]]\nreceivers = [\"ops\"]\n"
        ))
        .unwrap();
        assert_eq!(policy.routes_of(Fault::DnsFailures.into(), "shop"), [0, 1]);
        assert_eq!(policy.routes_of(Fault::DnsFailures.into(), "other"), [1]);
        assert_eq!(policy.routes_of(Fault::PacketLoss.into(), ""), [1]);
        assert_eq!(policy.routes_of(Fault::ZeroWindow.into(), ""), [2]);
        assert_eq!(policy.mode_of(&policy.routes[0]), Mode::Approve);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let error = load(
            "mode = \"enforce\"\n[incident]\nenter_windows = 9\n[receivers.ops]\nurl = \"ftp://x/\"
             [[routes]]\nreceivers = [\"ops\", \"nobody\"]\naction = \"restart\"\ngroup_by = [\"colour\"]\n",
        )
        .unwrap_err();
        for part in ["enter_windows", "only http", "`nobody` is not defined", "must be signed", "colour"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn an_unknown_key_or_fault_is_named_with_its_line() {
        for (text, part) in [
            ("mood = \"enforce\"\n", "mood"),
            ("[[routes]]\nfaults = [\"packetloss\"]\n", "packetloss"),
            ("[actions]\ncooldown = \"soon\"\n", "soon"),
            ("mode = \"enforced\"\n", "enforced"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(part) && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_in_a_file_and_never_in_an_error() {
        let error = load(
            "[receivers.ops]\nurl = \"http://127.0.0.1:9/\"\nsecrets.files = [\"policy.toml\"]\n[[routes]]\nreceivers = [\"ops\"]\n",
        )
        .unwrap_err();
        assert!(error.contains("whsec_") && !error.contains("MfKQ"), "{error}");
    }
}
