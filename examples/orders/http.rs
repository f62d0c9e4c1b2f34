//! Orders over plain HTTP and JSON.
//!
//! The rule this module protects: whoever is told "done" finds it on disk and in the read model; a refusal says why; and what
//! nobody knows yet is never told as if it were done.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use eventsourcing::environment::Environment as _;
use eventsourcing::listener::SubmitError;
use eventsourcing::model::Model as _;
use eventsourcing::outcome::Verdict;
use eventsourcing::ports::{PortError, ReadModels as _, Row, RowQuery, Test, Value};
use eventsourcing::turn::Trouble;
use invoice_financing::runtime::environment::SystemEnvironment;
use invoice_financing::runtime::stores::{AskError, Front};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{Command, Item, ItemAsk, Line, Lines, Name, OrderAsk, Refusal, Status};
use crate::shop::{ORDERS, STOCK, Shop};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(30);

/// How many seconds `?wait=` may ask for.
const LONGEST_WAIT: u64 = 60;

/// How many orders a page has where nothing is said, and at most.
const PAGE: (u32, u32) = (100, 1000);

/// The largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The orders and the stock of a running shop.
pub(crate) fn router(front: Front) -> Router {
    Router::new()
        .route("/", get(list).post(create))
        .route("/{id}", get(show).post(act))
        .route("/stock/{product}", get(stock).post(deliver))
        .fallback(|| async { not_found("there is nothing here") })
        .method_not_allowed_fallback(|| async { not_allowed() })
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(front)
}

type Answer = Result<Response, Failure>;
type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    customer: Name,
    items: Lines,
}

async fn create(State(front): State<Front>, headers: HeaderMap, body: Body<NewOrder>) -> Answer {
    let (key, Json(NewOrder { customer, items })) = (Key::of(&headers)?, body?);
    let id = key.id("order");
    let ask = OrderAsk::Create { customer, lines: items };
    let location = [(header::LOCATION, format!("/{id}"))];
    match tell(&front, &key, Command::Order { id, ask }).await {
        Ok(()) => Ok((StatusCode::CREATED, location, Json(the_order(&front, id).await?)).into_response()),
        Err(pending @ Failure { status: StatusCode::ACCEPTED, .. }) => {
            Ok((location, pending).into_response())
        }
        Err(failure) => Err(failure),
    }
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Action {
    Process,
    Cancel,
}

async fn act(
    State(front): State<Front>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body<Action>,
) -> Answer {
    let (id, key, Json(action)) = (order_id(&id)?, Key::of(&headers)?, body?);
    let ask = match action {
        Action::Process => OrderAsk::Process,
        Action::Cancel => OrderAsk::Cancel,
    };
    tell(&front, &key, Command::Order { id, ask }).await?;
    Ok(Json(the_order(&front, id).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patience {
    /// Seconds for which the answer may wait until nothing is under way any more.
    #[serde(default)]
    wait: u64,
}

async fn show(State(front): State<Front>, Path(id): Path<String>, asked: Asked<Patience>) -> Answer {
    let (id, Query(Patience { wait })) = (order_id(&id)?, asked?);
    if wait > LONGEST_WAIT {
        return Err(malformed(format!("wait is at most {LONGEST_WAIT} seconds")));
    }
    let (front, under_way) = (&front, Some(Value::Text(Status::Processing.name().to_owned())));
    let settled = || async {
        let row = front.read_models().row(ORDERS.name, id).await?;
        Ok(row.is_none_or(|row| !row.values.contains(&under_way)).then_some(()))
    };
    // Whether it is settled or the time was up: the answer shows what is so now.
    let _settled = front.until(Duration::from_secs(wait), settled).await?;
    Ok(Json(the_order(front, id).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    status: Option<Status>,
    after: Option<Uuid>,
    limit: Option<u32>,
}

async fn list(State(front): State<Front>, asked: Asked<Page>) -> Answer {
    let Query(Page { status, after, limit }) = asked?;
    let limit = limit.unwrap_or(PAGE.0);
    if !(1..=PAGE.1).contains(&limit) {
        return Err(malformed(format!("limit is 1 to {}", PAGE.1)));
    }
    let status = status.map(Status::name);
    let conditions = status.map(|status| ("status", Test::Is(Value::Text(status.to_owned()))));
    let conditions = conditions.into_iter().collect();
    // One more than is shown, to know whether there is more.
    let query =
        RowQuery { table: ORDERS.name, conditions, keys: None, after, limit: limit.saturating_add(1) };
    let mut rows = front.read_models().rows(&query).await?;
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > shown;
    rows.truncate(shown);
    let filter = status.map_or_else(String::new, |status| format!("status={status}&"));
    let next = rows.last().filter(|_| more).map(|last| format!("/?{filter}limit={limit}&after={}", last.key));
    let orders = rows.iter().map(OrderView::of).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(Listed { orders, next }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delivery {
    quantity: NonZeroU32,
}

async fn deliver(
    State(front): State<Front>,
    Path(product): Path<String>,
    headers: HeaderMap,
    body: Body<Delivery>,
) -> Answer {
    let (product, key) = (Name::try_from(product).map_err(malformed)?, Key::of(&headers)?);
    let Json(Delivery { quantity }) = body?;
    let command = Command::Item { product: product.clone(), ask: ItemAsk::Deliver { quantity } };
    tell(&front, &key, command).await?;
    stock(State(front), Path(product.into())).await
}

async fn stock(State(front): State<Front>, Path(product): Path<String>) -> Answer {
    let product = Name::try_from(product).map_err(malformed)?;
    let row = front.read_models().row(STOCK.name, Item::id(&product)).await?;
    let row = row.ok_or_else(|| not_found("it was never delivered"))?;
    let pieces = |column: usize| row.values.get(column)?.as_ref()?.integer();
    let (available, reserved) = (pieces(0).unwrap_or(0), pieces(1).unwrap_or(0));
    Ok(Json(StockView { product, available, reserved }).into_response())
}

/// Hands a command in, and waits until the read model shows what came of it.
async fn tell(front: &Front, key: &Key, command: Command) -> Result<(), Failure> {
    let outcome = front.ask::<Shop>(key.id("command"), "http", &command, WAIT).await?;
    match outcome.verdict {
        Verdict::Applied | Verdict::Unchanged => {}
        Verdict::Refused { reason, message } => {
            let unknown = reason == Shop::reason(&Refusal::NoSuchOrder);
            let status = if unknown { StatusCode::NOT_FOUND } else { StatusCode::CONFLICT };
            return Err(Failure { status, reason, message });
        }
        Verdict::Dead { reason, message } => {
            return Err(Failure { status: StatusCode::INTERNAL_SERVER_ERROR, reason, message });
        }
    }
    let shown = front.shows(outcome.position, WAIT).await?;
    shown.then_some(()).ok_or_else(|| AskError::Pending(WAIT).into())
}

/// What the client calls its request: the same key again is the same request.
struct Key(Option<Uuid>);

impl Key {
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = key.to_str().ok().and_then(|key| key.parse().ok());
        key.map(|key| Self(Some(key))).ok_or_else(|| malformed("Idempotency-Key is not a UUID"))
    }

    /// The id of what the request makes: always the same for the same key, a new one where there is none.
    fn id(&self, of: &str) -> Uuid {
        self.0.map_or_else(|| SystemEnvironment.uuid(), |key| Uuid::new_v5(&key, of.as_bytes()))
    }
}

fn order_id(text: &str) -> Result<Uuid, Failure> {
    text.parse().map_err(|_| not_found("there is no such order"))
}

/// A page of orders, and the path of the next one.
#[derive(Serialize)]
struct Listed {
    orders: Vec<OrderView>,
    next: Option<String>,
}

/// How many pieces of a product are free, and how many are promised.
#[derive(Serialize)]
struct StockView {
    product: Name,
    available: i64,
    reserved: i64,
}

/// An order as it is shown.
#[derive(Serialize)]
struct OrderView {
    id: Uuid,
    customer: String,
    items: Vec<Line>,
    status: String,
    /// The product that a rejected order did not get.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

impl OrderView {
    fn of(row: &Row) -> Result<Self, Failure> {
        let text = |column: usize| row.values.get(column)?.as_ref()?.text().map(str::to_owned);
        let (customer, items) = (text(0).unwrap_or_default(), text(1).unwrap_or_default());
        let items = serde_json::from_str(&items)
            .map_err(|error| PortError::Broken(format!("the items of order {}: {error}", row.key)))?;
        Ok(Self { id: row.key, customer, items, status: text(2).unwrap_or_default(), missing: text(3) })
    }
}

async fn the_order(front: &Front, id: Uuid) -> Result<OrderView, Failure> {
    let row = front.read_models().row(ORDERS.name, id).await?;
    OrderView::of(&row.ok_or_else(|| not_found("there is no such order"))?)
}

/// Any answer but the one that was hoped for.
#[derive(Serialize)]
struct Failure {
    #[serde(skip)]
    status: StatusCode,
    reason: String,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, reason: &str, message: impl Display) -> Self {
        Self { status, reason: reason.to_owned(), message: message.to_string() }
    }
}

fn malformed(message: impl Display) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "MALFORMED", message)
}

fn not_found(message: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

fn not_allowed() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "NOT_ALLOWED", "this can be read or posted to")
}

fn unavailable(error: impl Display) -> Failure {
    tracing::warn!(%error, "a request was not answered");
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "not now: try again")
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Submit(SubmitError::Unqueueable(_)) => malformed(error),
            AskError::Submit(SubmitError::Overloaded | SubmitError::Unavailable) => unavailable(error),
            AskError::Reused(_) => Self::new(StatusCode::CONFLICT, "IDEMPOTENCY_KEY_REUSED", error),
            AskError::Pending(_) => Self::new(StatusCode::ACCEPTED, "PENDING", error),
        }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        match error.trouble() {
            Trouble::Retry(reason) => unavailable(reason),
            Trouble::Halt(reason) => {
                tracing::error!(%reason, "a request cannot be answered");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "somebody has to look into the log")
            }
        }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            status @ (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
                Self::new(status, "MALFORMED", rejection.body_text())
            }
            _ => malformed(rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        malformed(rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
