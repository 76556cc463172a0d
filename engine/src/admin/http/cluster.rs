//! Conferences as all servers have them, and what the operator wants of the cluster.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{Failure, Shared, answers};
use crate::admin::{ConferenceView, view};
use crate::cluster::{Decision, Wanted};
use crate::focus::RoomName;
use crate::focus::liaison::Wish;
use crate::meters;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v1/conferences", get(conferences))
        .route("/api/v1/conferences/{id}", get(conference))
        .route("/api/v1/conferences/{id}/expected", put(expect))
        .route(
            "/api/v1/conferences/{id}/lock",
            post(async |shared, id| lock(shared, id, true).await),
        )
        .route(
            "/api/v1/conferences/{id}/unlock",
            post(async |shared, id| lock(shared, id, false).await),
        )
        .route(
            "/api/v1/conferences/{id}/participants/{entity}",
            delete(async |shared, path| {
                let end = Wish::End("ended by the operator".to_owned());
                wish(shared, path, end).await
            }),
        )
        .route(
            "/api/v1/conferences/{id}/participants/{entity}/mute",
            post(async |shared, path| wish(shared, path, Wish::Mute(true)).await),
        )
        .route(
            "/api/v1/conferences/{id}/participants/{entity}/unmute",
            post(async |shared, path| wish(shared, path, Wish::Mute(false)).await),
        )
        .route("/api/v1/decisions", get(decisions))
        .route("/api/v1/undrain", post(undrain))
}

async fn conferences(State(shared): State<Shared>) -> Result<Json<Vec<ConferenceView>>, Failure> {
    let shards = &shared.admin.shards;
    let all = answers(vec![shards.roster(None)]).await?;
    let parts = answers(shards.conferences()).await?;
    Ok(Json(joined(&shared, parts.into_iter().flatten(), all)))
}

async fn conference(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<ConferenceView>, Failure> {
    let shards = &shared.admin.shards;
    let all = answers(vec![shards.roster(Some(&id))]).await?;
    let parts = answers(shards.conference(&id)).await?;
    let found = joined(&shared, parts.into_iter().flatten(), all);
    let found = found.into_iter().next();
    found.map(Json).ok_or_else(|| no_conference(&id))
}

/// `all` has been asked for first: who has come here from elsewhere is in `parts` by the time he is no longer in
/// `all`.
fn joined(
    shared: &Shared,
    parts: impl Iterator<Item = ConferenceView>,
    all: Vec<Vec<crate::cluster::ConferenceView>>,
) -> Vec<ConferenceView> {
    let config = &shared.admin.config;
    let address = crate::serve::public_address(config, 0);
    let all = all.into_iter().flatten().collect();
    view::join(view::merge(parts), all, config.server.id, |id| {
        format!("sip:{id}@{address}")
    })
}

fn no_conference(id: &str) -> Failure {
    Failure(StatusCode::NOT_FOUND, format!("no conference {id}"))
}

fn room(id: &str) -> Result<RoomName, Failure> {
    RoomName::from_user(id).ok_or_else(|| no_conference(id))
}

#[derive(Serialize)]
struct Done {
    status: &'static str,
}

/// Has the cluster do something, and tells what became of it.
async fn order(shared: &Shared, wanted: Wanted) -> Result<Json<Done>, Failure> {
    let answer = answers(vec![shared.admin.shards.order(wanted)]).await?;
    match answer.into_iter().next() {
        Some((200..300, _)) => Ok(Json(Done { status: "done" })),
        Some((status, reason)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Failure(status, reason))
        }
        None => Err(Failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "no answer".to_owned(),
        )),
    }
}

async fn wish(
    State(shared): State<Shared>,
    Path((id, entity)): Path<(String, String)>,
    what: Wish,
) -> Result<Json<Done>, Failure> {
    let wanted = Wanted::User {
        room: room(&id)?,
        entity,
        endpoint: None,
        what,
    };
    order(&shared, wanted).await
}

async fn lock(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    locked: bool,
) -> Result<Json<Done>, Failure> {
    let room = room(&id)?;
    order(&shared, Wanted::Lock { room, locked }).await
}

/// How many are expected in a conference.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    participants: u32,
}

async fn expect(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    request: Result<Json<Expected>, JsonRejection>,
) -> Result<Json<Done>, Failure> {
    let Json(Expected { participants }) = request.map_err(Failure::from)?;
    let room = room(&id)?;
    order(&shared, Wanted::Expect { room, participants }).await
}

#[derive(Deserialize)]
struct DecisionsQuery {
    /// Only so many, the latest ones. Text, so that what is no number gets our answer.
    last: Option<String>,
}

async fn decisions(
    State(shared): State<Shared>,
    Query(query): Query<DecisionsQuery>,
) -> Result<Json<Vec<Decision>>, Failure> {
    let last = query.last.map(|text| text.parse::<usize>()).transpose();
    let last = last.map_err(|_| {
        let reason = "last is a whole number".to_owned();
        Failure(StatusCode::BAD_REQUEST, reason)
    })?;
    let decisions = answers(vec![shared.admin.shards.decisions()]).await?;
    let mut decisions: Vec<Decision> = decisions.into_iter().flatten().collect();
    let unwanted = decisions.len().saturating_sub(last.unwrap_or(usize::MAX));
    decisions.drain(..unwanted);
    Ok(Json(decisions))
}

#[derive(Serialize)]
struct Undrained {
    state: &'static str,
}

async fn undrain(State(shared): State<Shared>) -> (StatusCode, Json<Undrained>) {
    shared.admin.shards.undrain();
    let state = meters::State::Active.as_str();
    (StatusCode::ACCEPTED, Json(Undrained { state }))
}
