//! Routes, and the connections they are asked through.
//!
//! hyper is driven directly instead of by `axum::serve`, which offers no limit on header size, on
//! the time headers may take, or on the number of connections.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::MissedTickBehavior,
};

use super::{
    Admin, Sample, Sampler, Status, flamegraph,
    metrics::Metrics,
    trace::{self, Trace},
};
use crate::{focus::RoomName, meters, trace::Filter};

/// Connections at a time; more wait to be accepted. A dashboard or scraper needs one or two.
const CONNECTIONS_MAX: usize = 64;
/// Request line and headers together, far above what any client sends.
const HEADERS_LEN_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// A URI to be called, a number: no request says more.
const BODY_LEN_MAX: u64 = 1_024;
/// Time for a client to send its headers, and to keep a connection open between requests.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(10);
/// A client that takes nothing for this long is gone; who reads slowly must not hold a place for ever.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Time for the shards to answer: they look at their mailbox every turn, about once a millisecond.
const SHARD_TIME_MAX: Duration = Duration::from_secs(1);
/// How often the load is measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Wait after an `accept` that failed, for lack of file descriptors most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    admin: Admin,
    metrics: Arc<Metrics>,
    sample: Arc<Mutex<Sample>>,
}

mod cluster;

/// Samples the meters and answers requests until `shutdown` is done; open requests are then dropped.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: impl Future<Output = ()>) {
    let (router, sampling) = router(admin);
    let connections = accept(listener, router);
    tokio::select! {
        () = shutdown => {}
        () = sampling => {}
        () = connections => {}
    }
}

/// The routes, and the endless task that measures the load for them.
pub fn router(admin: Admin) -> (Router, impl Future<Output = ()> + use<>) {
    let mut sampler = Sampler::new(admin.meters.clone(), admin.load.clone(), Instant::now());
    let sample = Arc::new(Mutex::new(sampler.latest().clone()));
    let shared = Shared {
        metrics: Arc::new(Metrics::new(&admin)),
        sample: sample.clone(),
        admin,
    };
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .merge(cluster::routes())
        .route("/api/v1/conferences/{id}/participants", post(dial))
        .route("/api/v1/trace", get(trace))
        .route("/api/v1/drain", post(drain))
        .route("/debug/flamegraph", get(flamegraph))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "no such path".to_owned()))
        .method_not_allowed_fallback(async || {
            Failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has another method".to_owned(),
            )
        })
        .layer(middleware::from_fn(guard))
        .with_state(shared);
    let sampling = async move {
        let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval.tick().await;
        loop {
            interval.tick().await;
            let next = sampler.sample(Instant::now()).clone();
            *sample.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
    };
    (router, sampling)
}

async fn accept(listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "HTTP accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let router = router.clone();
        connections.spawn(async move {
            connection(stream, router).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Only a client that does not read gains if this fails.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIME_MAX));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADERS_LEN_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        // The client's doing: it went away, was too slow, or spoke something else.
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// Refuses what no handler should see.
async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|length| length > BODY_LEN_MAX)
    {
        let reason = format!(
            "bodies are at most {BODY_LEN_MAX} octets long, and of a length told beforehand"
        );
        return Failure(StatusCode::PAYLOAD_TOO_LARGE, reason).into_response();
    }
    if !request.method().is_safe() && is_from_another_site(headers) {
        let reason = "requests from pages of other sites change nothing here".to_owned();
        return Failure(StatusCode::FORBIDDEN, reason).into_response();
    }
    next.run(request).await
}

/// A browser says which page sent a POST. Without this check any web page could drain a server that
/// listens on the reader's own loopback.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &header::HeaderValue| value.to_str().unwrap_or(""))
    };
    let Some(origin) = text(header::ORIGIN) else {
        return false;
    };
    origin.split_once("://").map(|(_, host)| host) != text(header::HOST)
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match shared.admin.state.get() {
        meters::State::Active => (StatusCode::OK, "ready"),
        state => (StatusCode::SERVICE_UNAVAILABLE, state.as_str()),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    (
        [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)],
        shared.metrics.encode(),
    )
        .into_response()
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    let sample = shared
        .sample
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Json(Status::new(&shared.admin, &sample))
}

/// Whom to call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DialRequest {
    uri: String,
}

#[derive(Serialize)]
struct DialAccepted {
    uri: String,
    status: &'static str,
}

/// Has a conference call somebody, which makes the conference if need be.
async fn dial(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    request: Result<Json<DialRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<DialAccepted>), Failure> {
    let Json(request) = request.map_err(Failure::from)?;
    let room = RoomName::from_user(&id).ok_or_else(|| {
        Failure(
            StatusCode::BAD_REQUEST,
            format!("no room can be called {id}"),
        )
    })?;
    let uri = request.uri;
    let is_line = uri.bytes().all(|octet| (b'!'..=b'~').contains(&octet));
    if !is_line || uri.contains(['<', '>', '"']) {
        let reason = "uri is no SIP URI".to_owned();
        return Err(Failure(StatusCode::BAD_REQUEST, reason));
    }
    let answer = answers(vec![shared.admin.shards.dial(room, uri.clone())]).await?;
    match answer.first() {
        Some(100) => Ok((
            StatusCode::ACCEPTED,
            Json(DialAccepted {
                uri,
                status: "dialing-out",
            }),
        )),
        Some(404) => Err(Failure(
            StatusCode::NOT_FOUND,
            format!("no conference {id}"),
        )),
        Some(486) => Err(Failure(
            StatusCode::CONFLICT,
            format!("conference {id} is full"),
        )),
        Some(482) => Err(Failure(
            StatusCode::BAD_REQUEST,
            "a conference does not call itself".to_owned(),
        )),
        Some(416) => Err(Failure(
            StatusCode::BAD_REQUEST,
            "uri is none that can be called: sip:USER@HOST[:PORT][;transport=tcp|tls]".to_owned(),
        )),
        _ => Err(Failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server makes no calls now".to_owned(),
        )),
    }
}

/// Waits for all shards together, so that one that hangs costs a second and not one each.
async fn answers<T>(receivers: Vec<oneshot::Receiver<T>>) -> Result<Vec<T>, Failure> {
    let all = async {
        let mut answers = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            answers.push(receiver.await.ok()?);
        }
        Some(answers)
    };
    tokio::time::timeout(SHARD_TIME_MAX, all)
        .await
        .ok()
        .flatten()
        .ok_or_else(|| {
            Failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "a shard did not answer".to_owned(),
            )
        })
}

#[derive(Serialize)]
struct DrainAccepted {
    state: &'static str,
}

async fn drain(State(shared): State<Shared>) -> (StatusCode, Json<DrainAccepted>) {
    shared.admin.shards.drain();
    (
        StatusCode::ACCEPTED,
        Json(DrainAccepted {
            state: meters::State::Draining.as_str(),
        }),
    )
}

#[derive(Deserialize)]
struct TraceQuery {
    /// The beginning of a Call-ID.
    call: Option<String>,
    /// A room's name.
    room: Option<String>,
    /// 0: what is remembered; none: until the client goes.
    seconds: Option<String>,
}

async fn trace(
    State(shared): State<Shared>,
    Query(query): Query<TraceQuery>,
) -> Result<Response, Failure> {
    let seconds = query.seconds.map(|text| text.parse::<u64>()).transpose();
    let Some(seconds) = seconds
        .ok()
        .filter(|seconds| seconds.is_none_or(|seconds| seconds <= trace::SECONDS_MAX))
    else {
        let reason = format!("seconds is a whole number from 0 to {}", trace::SECONDS_MAX);
        return Err(Failure(StatusCode::BAD_REQUEST, reason));
    };
    let Some(watch) = shared.admin.watchers.watch() else {
        let reason = "too many watch already".to_owned();
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    let trace = Trace::new(
        shared.admin.shards.clone(),
        shared.admin.meters.clone(),
        Filter::new(query.call, query.room),
        seconds.map(Duration::from_secs),
        watch,
    );
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(trace.lines())).into_response())
}

#[derive(Deserialize)]
struct FlamegraphQuery {
    /// Text, so that what is no number gets our answer.
    seconds: Option<String>,
    format: Option<String>,
}

async fn flamegraph(query: Query<FlamegraphQuery>) -> Result<Response, Failure> {
    let seconds = query
        .0
        .seconds
        .map_or(Ok(flamegraph::SECONDS_DEFAULT), |text| text.parse());
    let Some(seconds) = seconds
        .ok()
        .filter(|seconds| flamegraph::SECONDS.contains(seconds))
    else {
        let (low, high) = (flamegraph::SECONDS.start(), flamegraph::SECONDS.end());
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            format!("seconds is a whole number from {low} to {high}"),
        ));
    };
    let format = query.0.format.as_deref().unwrap_or("svg");
    let Some(format) = flamegraph::Format::from_name(format) else {
        let reason = "format is svg or folded".to_owned();
        return Err(Failure(StatusCode::BAD_REQUEST, reason));
    };
    let recording = flamegraph::record(Duration::from_secs(seconds), format)
        .await
        .map_err(|error| {
            let status = match error {
                flamegraph::Error::Running => StatusCode::CONFLICT,
                flamegraph::Error::Profiler(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Failure(status, error.to_string())
        })?;
    let content_type = [(header::CONTENT_TYPE, format.content_type())];
    Ok((content_type, Body::from(recording)).into_response())
}

/// A status with its reason as `{"error": reason}`.
struct Failure(StatusCode, String);

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        let status = match rejection {
            JsonRejection::MissingJsonContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, rejection.body_text())
    }
}

#[derive(Serialize)]
struct FailureBody {
    error: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(FailureBody { error: self.1 })).into_response()
    }
}

#[cfg(test)]
mod tests;
