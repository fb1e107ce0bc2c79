//! The HTTP server: what a monitor reads, and the two requests that change something.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tracing::error;

use super::{Command, Shared};

/// How long a request that changes something waits for the pipeline.
const PATIENCE: Duration = Duration::from_secs(10);
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/v1/incidents", get(incidents))
        .route("/v1/verdicts", get(verdicts))
        .route("/v1/actions/{key}/approve", post(approve))
        .route("/v1/quarantine/clear", post(clear))
        .with_state(shared);
    if let Err(failure) = axum::serve(listener, app).await {
        error!("the HTTP server ended: {failure}");
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], shared.metrics.encode()).into_response()
}

/// Ready only while the sources are attached.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.ready.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not attached\n").into_response()
    }
}

async fn incidents(State(shared): State<Arc<Shared>>) -> Response {
    let state = Arc::clone(&shared.state.read().unwrap_or_else(PoisonError::into_inner));
    ([(header::CONTENT_TYPE, "application/json")], state.to_string()).into_response()
}

/// Verdict lines as they are made; a listener that is too slow is told how many it missed.
async fn verdicts(State(shared): State<Arc<Shared>>) -> Response {
    let lines = BroadcastStream::new(shared.verdicts.subscribe()).map(|line| {
        Ok::<Event, Infallible>(match line {
            Ok(line) => Event::default().event("verdict").data(&*line),
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                Event::default().event("missed").data(missed.to_string())
            }
        })
    });
    Sse::new(lines).keep_alive(KeepAlive::default()).into_response()
}

async fn approve(State(shared): State<Arc<Shared>>, headers: HeaderMap, Path(key): Path<String>) -> Response {
    let (answer, answered) = oneshot::channel();
    match ask(&shared, &headers, Command::Approve { key, answer }, answered).await {
        Err(refusal) => refusal,
        Ok(Some(outcome)) => Json(json!({ "outcome": outcome })).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "no such proposal, or its incident is over\n").into_response(),
    }
}

/// The target's name is the body, as incidents name it: `pod/shop/web-0`.
async fn clear(State(shared): State<Arc<Shared>>, headers: HeaderMap, target: String) -> Response {
    let (answer, answered) = oneshot::channel();
    let target = target.trim().to_owned();
    match ask(&shared, &headers, Command::Clear { target, answer }, answered).await {
        Err(refusal) => refusal,
        Ok(true) => Json(json!({"outcome": "cleared"})).into_response(),
        Ok(false) => (StatusCode::NOT_FOUND, "nothing was done about that target\n").into_response(),
    }
}

/// Hands a command to the pipeline, where the bearer may.
async fn ask<T>(
    shared: &Shared,
    headers: &HeaderMap,
    command: Command,
    answered: oneshot::Receiver<T>,
) -> Result<T, Response> {
    let refuse = |status: StatusCode, text: &'static str| (status, text).into_response();
    let Some(token) = &shared.token else {
        return Err(refuse(StatusCode::FORBIDDEN, "infer was started without --token-file\n"));
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Hashes are compared, so that the time taken tells nothing of the token.
    if Sha256::digest(given.as_bytes()) != Sha256::digest(token.as_bytes()) {
        return Err(refuse(StatusCode::UNAUTHORIZED, "a bearer token is needed\n"));
    }
    let sent = shared.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command);
    if sent.is_err() {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"));
    }
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the pipeline did not answer\n")),
    }
}
