//! Metrics as Prometheus gets them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::in_time;

/// The metrics of several processes.
pub(super) struct Scraped(String);

/// Sends a request line's beginning, as in `GET /metrics `; answers with all that comes back.
pub(super) async fn ask(address: &str, request: &str) -> String {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request}HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    in_time("metrics are answered", asking).await
}

impl Scraped {
    /// Of the processes at these addresses.
    pub(super) async fn all(addresses: &[String]) -> Self {
        let mut text = String::new();
        for address in addresses {
            let answer = ask(address, "GET /metrics ").await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            text.push_str(body);
        }
        Self(text)
    }

    pub(super) fn text(&self) -> &String {
        &self.0
    }

    /// The sum of a metric over all series that have these labels; `None` where there is none.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series, labelled) = series.split_once('{').unwrap_or((series, "}"));
            let has = |(label, value): &(&str, &str)| {
                let pair = format!("{label}=\"{value}\"");
                labelled.trim_end_matches('}').split(',').any(|one| one == pair)
            };
            (series == name && labels.iter().all(has)).then(|| value.parse::<f64>().unwrap())
        });
        let values: Vec<f64> = values.collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}
