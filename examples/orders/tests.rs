//! The shop as its customers meet it: over HTTP, on a free port, with its files in a temporary directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eventsourcing::environment::{Environment as _, Stop, Stopper};
use invoice_financing::runtime::environment::SystemEnvironment;
use invoice_financing::runtime::stores::Running;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::shop::{OrderProcessor, SCHEMA, Shop, Shown};

struct Served {
    address: std::net::SocketAddr,
    stopper: Stopper,
    server: JoinHandle<Result<(), String>>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl Reply {
    /// The path of the order that was created.
    fn order(&self) -> String {
        assert_eq!(self.status, 201, "{self:?}");
        let path = self.headers["location"].clone();
        assert_eq!(self.body["id"], path[1..]);
        path
    }

    /// The status code and the reason of an answer that is none.
    fn reason(&self) -> (u16, &str) {
        (self.status, self.body["reason"].as_str().unwrap())
    }
}

impl Served {
    async fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, directory) = (listener.local_addr().unwrap(), directory.to_owned());
        let (stopper, stop) = Stop::new();
        let server =
            tokio::spawn(
                async move { crate::serve(listener, &directory, async { stop.given().await }).await },
            );
        Self { address, stopper, server }
    }

    async fn stop(self) {
        self.stopper.stop();
        assert_eq!(self.server.await.unwrap(), Ok(()));
    }

    async fn get(&self, path: &str) -> Reply {
        request(self.address, &format!("GET {path} HTTP/1.1\r\n"), "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_again(path, SystemEnvironment.uuid(), body).await
    }

    async fn post_again(&self, path: &str, key: Uuid, body: &Value) -> Reply {
        let head =
            format!("POST {path} HTTP/1.1\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\n");
        request(self.address, &head, &body.to_string()).await
    }

    /// Creates an order of so many pieces of each product.
    async fn order(&self, items: &[(&str, u32)]) -> String {
        self.post("/", &order(items)).await.order()
    }

    /// The status of an order, when nothing is under way any more.
    async fn settled(&self, order: &str) -> Value {
        self.get(&format!("{order}?wait=60")).await.body["status"].clone()
    }

    async fn stock(&self, product: &str) -> (i64, i64) {
        let Reply { status, body, .. } = self.get(&format!("/stock/{product}")).await;
        assert_eq!(status, 200, "{body}");
        (body["available"].as_i64().unwrap(), body["reserved"].as_i64().unwrap())
    }

    /// Asks until it is so: what an order gives up is on its way for a moment.
    async fn stock_becomes(&self, product: &str, pieces: (i64, i64)) {
        let asking = async { while self.stock(product).await != pieces {} };
        tokio::time::timeout(Duration::from_mins(1), asking).await.expect(product);
    }
}

async fn request(address: std::net::SocketAddr, head: &str, body: &str) -> Reply {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!("{head}host: orders\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    connection.write_all(text.as_bytes()).await.unwrap();
    let mut reply = String::new();
    connection.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Reply { status, headers, body: serde_json::from_str(body).unwrap_or_default() }
}

fn order(items: &[(&str, u32)]) -> Value {
    let line = |(product, quantity): &(&str, u32)| json!({ "product": product, "quantity": quantity });
    json!({ "customer": "Ada", "items": items.iter().map(line).collect::<Vec<_>>() })
}

fn process() -> Value {
    json!({ "action": "process" })
}

fn cancel() -> Value {
    json!({ "action": "cancel" })
}

fn pieces(quantity: u32) -> Value {
    json!({ "quantity": quantity })
}

/// A shop that has five cups and two pots.
async fn open() -> (Served, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let shop = Served::start(directory.path()).await;
    assert_eq!(shop.post("/stock/cup", &pieces(5)).await.body["available"], 5);
    assert_eq!(shop.post("/stock/pot", &pieces(2)).await.body["available"], 2);
    (shop, directory)
}

#[tokio::test]
async fn an_order_is_created_processed_and_confirmed() {
    let (shop, _directory) = open().await;
    let created = shop.post("/", &order(&[("cup", 4), ("pot", 1)])).await;
    assert_eq!(created.body["status"], "CREATED");
    let path = created.order();
    assert_eq!(shop.get(&path).await.body, created.body);
    let processed = shop.post(&path, &process()).await;
    assert_eq!(processed.status, 200);
    assert_eq!(shop.settled(&path).await, "CONFIRMED");
    assert_eq!(shop.stock("cup").await, (1, 4));
    assert_eq!(shop.stock("pot").await, (1, 1));
    assert_eq!(shop.post(&path, &process()).await.body["status"], "CONFIRMED", "it is so already");
    shop.stop().await;
}

#[tokio::test]
async fn what_a_rejected_order_had_reserved_goes_back() {
    let (shop, _directory) = open().await;
    let path = shop.order(&[("cup", 5), ("pot", 2), ("spoon", 1)]).await;
    shop.post(&path, &process()).await;
    assert_eq!(shop.settled(&path).await, "REJECTED");
    assert_eq!(shop.get(&path).await.body["missing"], "spoon");
    shop.stock_becomes("cup", (5, 0)).await;
    shop.stock_becomes("pot", (2, 0)).await;
    shop.stop().await;
}

#[tokio::test]
async fn what_a_cancelled_order_had_reserved_goes_back() {
    let (shop, _directory) = open().await;
    let path = shop.order(&[("cup", 2), ("cup", 3)]).await;
    shop.post(&path, &process()).await;
    assert_eq!(shop.settled(&path).await, "CONFIRMED");
    assert_eq!(shop.stock("cup").await, (0, 5));
    assert_eq!(shop.post(&path, &cancel()).await.body["status"], "CANCELLED");
    shop.stock_becomes("cup", (5, 0)).await;
    shop.stop().await;
}

#[tokio::test]
async fn of_two_orders_for_the_last_pieces_one_is_confirmed() {
    let (shop, _directory) = open().await;
    let (one, other) = (shop.order(&[("pot", 2)]).await, shop.order(&[("pot", 2)]).await);
    let (process, rejected) = (process(), json!("REJECTED"));
    tokio::join!(shop.post(&one, &process), shop.post(&other, &process));
    let statuses = [shop.settled(&one).await, shop.settled(&other).await];
    assert!(statuses.contains(&json!("CONFIRMED")) && statuses.contains(&rejected), "{statuses:?}");
    assert_eq!(shop.stock("pot").await, (0, 2));
    shop.stop().await;
}

#[tokio::test]
async fn a_refusal_says_why_and_changes_nothing() {
    let (shop, _directory) = open().await;
    let path = shop.order(&[("cup", 1)]).await;
    shop.post(&path, &cancel()).await;
    let refused = shop.post(&path, &process()).await;
    assert_eq!(refused.reason(), (409, "WRONG_STATUS"));
    assert_eq!(refused.body["message"], "the order is CANCELLED");
    assert_eq!(shop.get(&path).await.body["status"], "CANCELLED");
    let unknown = format!("/{}", SystemEnvironment.uuid());
    assert_eq!(shop.get(&unknown).await.reason(), (404, "NOT_FOUND"));
    assert_eq!(shop.post(&unknown, &process()).await.reason(), (404, "NO_SUCH_ORDER"));
    assert_eq!(shop.get("/stock/spoon").await.reason(), (404, "NOT_FOUND"));
    assert_eq!(shop.get("/an/order").await.reason(), (404, "NOT_FOUND"));
    assert_eq!(request(shop.address, "DELETE / HTTP/1.1\r\n", "").await.reason(), (405, "NOT_ALLOWED"));
    shop.stop().await;
}

#[tokio::test]
async fn a_retry_is_a_retry() {
    let (shop, _directory) = open().await;
    let (key, wanted) = (SystemEnvironment.uuid(), order(&[("cup", 1)]));
    let path = shop.post_again("/", key, &wanted).await.order();
    assert_eq!(shop.post_again("/", key, &wanted).await.order(), path);
    assert_eq!(shop.get("/").await.body["orders"].as_array().unwrap().len(), 1);
    let other = shop.post_again("/", key, &order(&[("cup", 2)])).await;
    assert_eq!(other.reason(), (409, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(shop.get(&path).await.body["items"][0]["quantity"], 1);

    let key = SystemEnvironment.uuid();
    for _ in 0..3 {
        assert_eq!(shop.post_again("/stock/spoon", key, &pieces(7)).await.body["available"], 7);
    }
    shop.stop().await;
}

#[tokio::test]
async fn what_is_malformed_is_refused_at_the_door() {
    let (shop, _directory) = open().await;
    let (nameless, no_items) =
        (json!({ "customer": "", "items": [] }), json!({ "customer": "Ada", "items": [] }));
    let path = shop.order(&[("cup", 1)]).await;
    for (path, body) in [
        ("/", nameless),
        ("/", no_items),
        ("/", order(&[("cup", 0)])),
        ("/", order(&[("a\nb", 1)])),
        ("/", json!({ "customer": "Ada", "items": [{ "product": "cup", "quantity": 1 }], "price": 3 })),
        ("/", json!("text")),
        (&path, json!({ "action": "lose" })),
        ("/stock/cup", pieces(0)),
        ("/stock/%00", pieces(1)),
    ] {
        assert_eq!(shop.post(path, &body).await.reason(), (400, "MALFORMED"), "{body}");
    }
    for path in ["/?limit=0", "/?limit=1001", "/?status=LOST", "/?after=here", &format!("{path}?wait=61")] {
        assert_eq!(shop.get(path).await.reason(), (400, "MALFORMED"), "{path}");
    }
    let head = "POST / HTTP/1.1\r\ncontent-type: application/json\r\n";
    assert_eq!(request(shop.address, head, "{").await.reason(), (400, "MALFORMED"));
    let keyed = format!("{head}idempotency-key: mine\r\n");
    let whole = order(&[("cup", 1)]).to_string();
    assert_eq!(request(shop.address, &keyed, &whole).await.reason(), (400, "MALFORMED"));
    let large = order(&vec![("cup", 1); 10_000]).to_string();
    assert_eq!(request(shop.address, head, &large).await.reason(), (413, "MALFORMED"));
    assert_eq!(shop.get("/").await.body["orders"].as_array().unwrap().len(), 1);
    shop.stop().await;
}

#[tokio::test]
async fn a_list_has_pages_and_a_filter() {
    let (shop, _directory) = open().await;
    let mut paths = Vec::new();
    for _ in 0..5 {
        paths.push(shop.order(&[("cup", 1)]).await);
    }
    shop.post(&paths[2], &cancel()).await;
    let listed = |reply: &Reply| -> Vec<String> {
        let orders = reply.body["orders"].as_array().unwrap();
        orders.iter().map(|order| format!("/{}", order["id"].as_str().unwrap())).collect()
    };
    let mut pages = vec![shop.get("/?limit=2").await];
    while let Some(next) = pages.last().unwrap().body["next"].as_str().map(str::to_owned) {
        pages.push(shop.get(&next).await);
    }
    assert_eq!(pages.iter().map(|page| listed(page).len()).collect::<Vec<_>>(), [2, 2, 1]);
    let mut found: Vec<String> = pages.iter().flat_map(listed).collect();
    let cancelled = shop.get("/?status=CANCELLED&limit=1").await;
    assert_eq!(listed(&cancelled), [paths[2].clone()]);
    assert_eq!(cancelled.body["next"], Value::Null);
    found.sort_unstable();
    paths.sort_unstable();
    assert_eq!(found, paths);
    shop.stop().await;
}

#[tokio::test]
async fn a_shop_that_opens_again_goes_on_where_it_was() {
    let (shop, directory) = open().await;
    let (key, wanted) = (SystemEnvironment.uuid(), order(&[("cup", 1), ("pot", 1), ("cup", 2)]));
    let path = shop.post_again("/", key, &wanted).await.order();
    shop.post(&path, &process()).await;
    // Not waited for: the processor may be anywhere on its way.
    shop.stop().await;
    let shop = Served::start(directory.path()).await;
    assert_eq!(shop.settled(&path).await, "CONFIRMED");
    assert_eq!((shop.stock("cup").await, shop.stock("pot").await), ((2, 3), (1, 1)));
    assert_eq!(shop.post_again("/", key, &wanted).await.order(), path, "a retry is one the next day, too");
    assert_eq!(shop.get("/").await.body["orders"].as_array().unwrap().len(), 1);
    shop.stop().await;
}

#[tokio::test]
async fn trouble_says_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start::<Shop>(directory.path(), SCHEMA, OrderProcessor, Shown).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = crate::http::router(running.front().clone());
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    running.stop().await.unwrap();
    let reply = request(address, "GET / HTTP/1.1\r\n", "").await;
    assert_eq!(reply.reason(), (503, "UNAVAILABLE"));
    assert_eq!(reply.headers["retry-after"], "1");
    server.abort();
}
