//! The smaller commands: policies, dead letters, signatures and logs, looked at from outside.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use cli::Exit;
use serde_json::json;
use tracing::info;

use crate::args::{AuditCommand, DlqCommand, PolicyCommand, WebhookCommand};
use crate::audit;
use crate::deliver::Store;
use crate::notify::{SigningKeys, Verifier};
use crate::policy::Policy;
use crate::time::now_ms;

/// `infer policy ...`
pub fn policy(command: &PolicyCommand) -> anyhow::Result<Exit> {
    let PolicyCommand::Check { file } = command;
    let policy = Policy::load(file)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}: mode {}", file.display(), policy.mode.name())?;
    for (place, route) in policy.routes.iter().enumerate() {
        let list = |names: Vec<String>| if names.is_empty() { "any".to_owned() } else { names.join(", ") };
        writeln!(
            out,
            "route {}: faults {}; namespaces {}; severities {}; tells {}; {}",
            place + 1,
            list(route.faults.iter().map(ToString::to_string).collect()),
            list(route.namespaces.clone()),
            list(route.severities.iter().map(|severity| severity.name().to_owned()).collect()),
            route.receivers.join(", "),
            match &route.action {
                Some(action) => format!("action {action} in mode {}", policy.mode_of(route).name()),
                None => "no action".to_owned(),
            }
        )?;
    }
    Ok(Exit::Done)
}

/// `infer dlq ...`
pub fn dlq(command: &DlqCommand) -> anyhow::Result<Exit> {
    match command {
        DlqCommand::List { state_dir } => {
            let mut out = io::stdout().lock();
            for (place, letter) in Store::beside(state_dir)?.dead_letters()? {
                writeln!(out, "{}", json!({"place": place, "letter": letter}))?;
            }
            Ok(Exit::Done)
        }
        DlqCommand::Replay { state_dir, receiver } => replay(state_dir, receiver.as_deref()),
    }
}

fn replay(state_dir: &Path, receiver: Option<&str>) -> anyhow::Result<Exit> {
    let store = Store::beside(state_dir)?;
    let letters = store.dead_letters()?;
    let (mut queued, mut expired) = (0u64, 0u64);
    store.write(|change| {
        if let Some(receiver) = receiver {
            change.set_disabled(receiver, None)?;
        }
        for (place, letter) in &letters {
            if receiver.is_some_and(|receiver| receiver != letter.receiver) {
                continue;
            }
            if change.revive(*place, letter, now_ms())? {
                queued += 1;
            } else {
                expired += 1;
            }
        }
        Ok(())
    })?;
    info!(queued, expired, "dead letters queued again; a running infer delivers them within seconds");
    Ok(Exit::Done)
}

/// `infer webhook ...`
pub fn webhook(command: &WebhookCommand) -> anyhow::Result<Exit> {
    let WebhookCommand::Verify { secret_file, id, timestamp, signature, now } = command;
    let text = std::fs::read_to_string(secret_file)
        .with_context(|| format!("cannot read {}", secret_file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys = SigningKeys::parse(lines).with_context(|| format!("in {}", secret_file.display()))?;
    if keys.is_empty() {
        bail!("{} holds no key", secret_file.display());
    }
    let mut body = Vec::new();
    io::stdin().read_to_end(&mut body).context("cannot read the body from standard input")?;
    let headers: BTreeMap<&str, &str> =
        [("webhook-id", id.as_str()), ("webhook-timestamp", timestamp), ("webhook-signature", signature)]
            .into();
    let now = now.unwrap_or_else(|| now_ms() / 1000);
    let id = Verifier::new(keys).verify(|name| headers.get(name).copied(), &body, now)?;
    writeln!(io::stdout(), "{id}: signed with a known key, in time")?;
    Ok(Exit::Done)
}

/// `infer audit ...`
pub fn audit(command: &AuditCommand) -> anyhow::Result<Exit> {
    let AuditCommand::Verify { file } = command;
    let found = audit::verify(file)?;
    writeln!(io::stdout(), "{}: {} lines, last hash {}", file.display(), found.lines, found.last_hash)?;
    if found.torn > 0 {
        tracing::warn!(bytes = found.torn, "the last line was cut short, as by a crash");
        return Ok(Exit::Damaged);
    }
    Ok(Exit::Done)
}
