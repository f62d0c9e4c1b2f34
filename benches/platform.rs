//! Measures a running platform from outside: how many commands a second it takes and projects; how long a command takes
//! to be projected at a rate below that; and how long a lone client waits for a bid to settle.
//!
//! `cargo bench --bench platform -- --help`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::float_arithmetic,
    reason = "a benchmark stops where something is wrong, and measures with the machine's clock"
)]

use std::time::{Duration, Instant};

use clap::Parser;
use invoice_financing::api::proto::financing::v1::command_service_client::CommandServiceClient;
use invoice_financing::api::proto::financing::v1::query_service_client::QueryServiceClient;
use invoice_financing::api::proto::financing::v1::{
    BidOnInvoiceRequest, BidStatus, GetBidRequest, GetInvestorRequest, Money, SellInvoiceRequest,
    WaitCommandRequest,
};
use invoice_financing::api::proto::registering::v1::integration_service_client::IntegrationServiceClient;
use invoice_financing::api::proto::registering::v1::{
    IntegrationEvent, InvestorRegistered, IssuerRegistered, PublishIntegrationEventsRequest,
    integration_event::Event,
};
use tonic::transport::Channel;
use uuid::Uuid;

#[derive(Parser)]
struct Settings {
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    commands: String,
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    queries: String,
    /// Clients at once
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Connections that they share
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// For how long they sell invoices
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many commands a second are offered, whether or not the platform keeps up; 0: not at all
    #[arg(long, default_value_t = 500)]
    offered: u32,
    /// How many bids the lone client places
    #[arg(long, default_value_t = 200)]
    bids: usize,
    /// Given by cargo
    #[arg(long)]
    bench: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let settings = Settings::parse();
    if settings.clients > 0 {
        sell(&settings).await;
    }
    if settings.offered > 0 {
        offer(&settings).await;
    }
    if settings.bids > 0 {
        settle(&settings).await;
    }
}

fn eur(units: i64) -> Money {
    Money { currency_code: "EUR".to_owned(), units, nanos: 0 }
}

async fn register(settings: &Settings, event: Event) {
    let mut integration = IntegrationServiceClient::connect(settings.commands.clone()).await.unwrap();
    let events = vec![IntegrationEvent { event: Some(event), event_id: String::new() }];
    let request = PublishIntegrationEventsRequest { events };
    let answer = integration.publish_integration_events(request).await.unwrap().into_inner();
    projected(settings, answer.command_ids).await;
}

async fn projected(settings: &Settings, command_ids: Vec<String>) {
    let mut queries = QueryServiceClient::connect(settings.queries.clone()).await.unwrap();
    for command_id in command_ids {
        let request = WaitCommandRequest { command_id, wait: None };
        let command = queries.wait_command(request).await.unwrap().into_inner().command.unwrap();
        assert!(!command.token.is_empty(), "{command:?}");
    }
}

async fn sell(settings: &Settings) {
    let issuer_id = Uuid::now_v7().to_string();
    let name = "Bench".to_owned();
    register(settings, Event::IssuerRegistered(IssuerRegistered { issuer_id: issuer_id.clone(), name }))
        .await;
    let mut channels: Vec<CommandServiceClient<Channel>> = Vec::new();
    for _ in 0..settings.connections {
        channels.push(CommandServiceClient::connect(settings.commands.clone()).await.unwrap());
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs(settings.seconds);
    let clients: Vec<_> = (0..settings.clients)
        .map(|number| {
            let mut client = channels[number % channels.len()].clone();
            let issuer_id = issuer_id.clone();
            tokio::spawn(async move {
                let (mut latencies, mut last) = (Vec::new(), String::new());
                while Instant::now() < end {
                    let request = SellInvoiceRequest {
                        issuer_id: issuer_id.clone(),
                        asking_price: Some(eur(100)),
                        ..SellInvoiceRequest::default()
                    };
                    let sent = Instant::now();
                    last = client.sell_invoice(request).await.unwrap().into_inner().command_id;
                    latencies.push(sent.elapsed());
                }
                (latencies, last)
            })
        })
        .collect();
    let (mut latencies, mut lasts) = (Vec::new(), Vec::new());
    for client in clients {
        let (more, last) = client.await.unwrap();
        latencies.extend(more);
        lasts.push(last);
    }
    let accepted = begin.elapsed();
    projected(settings, lasts).await;
    let projected = begin.elapsed();
    let count = latencies.len() as f64;
    println!(
        "sell: {} clients, {} commands; accepted {:.0}/s, projected {:.0}/s; accepted after {}",
        settings.clients,
        latencies.len(),
        count / accepted.as_secs_f64(),
        count / projected.as_secs_f64(),
        percentiles(latencies)
    );
}

/// Rings so many times a second, from a thread of the operating system: tokio's timers are a millisecond coarse.
fn metronome(rate: u32, duration: Duration) -> tokio::sync::mpsc::UnboundedReceiver<Instant> {
    let (beat, beats) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let begin = Instant::now();
        for number in 0..u32::MAX {
            let due = begin + Duration::from_secs(1) * number / rate;
            if due > begin + duration {
                return;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if beat.send(due).is_err() {
                return;
            }
        }
    });
    beats
}

/// Offers commands at a steady rate. What is measured begins when a command was due, and not when it was sent.
async fn offer(settings: &Settings) {
    let issuer_id = Uuid::now_v7().to_string();
    let name = "Bench".to_owned();
    register(settings, Event::IssuerRegistered(IssuerRegistered { issuer_id: issuer_id.clone(), name }))
        .await;
    let mut channels = Vec::new();
    for _ in 0..settings.connections {
        let commands = CommandServiceClient::connect(settings.commands.clone()).await.unwrap();
        let queries = QueryServiceClient::connect(settings.queries.clone()).await.unwrap();
        channels.push((commands, queries));
    }
    let mut beats = metronome(settings.offered, Duration::from_secs(settings.seconds));
    let mut calls = Vec::new();
    while let Some(due) = beats.recv().await {
        let (mut commands, mut queries) = channels[calls.len() % channels.len()].clone();
        let issuer_id = issuer_id.clone();
        calls.push(tokio::spawn(async move {
            let request = SellInvoiceRequest {
                issuer_id,
                asking_price: Some(eur(100)),
                ..SellInvoiceRequest::default()
            };
            let command_id = commands.sell_invoice(request).await.unwrap().into_inner().command_id;
            let accepted = Instant::now();
            let request = WaitCommandRequest { command_id, wait: None };
            let command = queries.wait_command(request).await.unwrap().into_inner().command.unwrap();
            assert!(!command.token.is_empty(), "{command:?}");
            (accepted - due, accepted.elapsed(), due.elapsed())
        }));
    }
    let (mut accepted, mut projected, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for call in calls {
        let (until_accepted, until_projected, both) = call.await.unwrap();
        accepted.push(until_accepted);
        projected.push(until_projected);
        total.push(both);
    }
    println!("offered: {}/s for {} s, {} commands", settings.offered, settings.seconds, total.len());
    println!("  due to accepted:       {}", percentiles(accepted));
    println!("  accepted to projected: {}", percentiles(projected));
    println!("  due to projected:      {}", percentiles(total));
}

async fn settle(settings: &Settings) {
    let (issuer_id, investor_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let name = "Bench".to_owned();
    register(
        settings,
        Event::IssuerRegistered(IssuerRegistered { issuer_id: issuer_id.clone(), name: name.clone() }),
    )
    .await;
    let registered =
        InvestorRegistered { investor_id: investor_id.clone(), name, balance: Some(eur(1_000_000_000)) };
    register(settings, Event::InvestorRegistered(registered)).await;
    let mut commands = CommandServiceClient::connect(settings.commands.clone()).await.unwrap();
    let mut queries = QueryServiceClient::connect(settings.queries.clone()).await.unwrap();
    let mut latencies = Vec::new();
    for number in 1..=settings.bids {
        let request = SellInvoiceRequest {
            issuer_id: issuer_id.clone(),
            asking_price: Some(eur(100)),
            ..SellInvoiceRequest::default()
        };
        let sold = commands.sell_invoice(request).await.unwrap().into_inner();
        projected(settings, vec![sold.command_id]).await;
        let request = BidOnInvoiceRequest {
            investor_id: investor_id.clone(),
            invoice_id: sold.invoice_id,
            amount: Some(eur(150)),
            ..BidOnInvoiceRequest::default()
        };
        let sent = Instant::now();
        let bid_id = commands.bid_on_invoice(request).await.unwrap().into_inner().bid_id;
        // Settled: the bid has won, and what exceeds the asking price is available again.
        loop {
            let request = GetInvestorRequest { investor_id: investor_id.clone(), token: String::new() };
            let investor = queries.get_investor(request).await.unwrap().into_inner().investor.unwrap();
            let request = GetBidRequest { bid_id: bid_id.clone(), token: String::new() };
            let won = queries.get_bid(request).await.is_ok_and(|answer| {
                answer.into_inner().bid.is_some_and(|bid| bid.status() == BidStatus::Won)
            });
            if won && investor.reserved == Some(eur(100 * i64::try_from(number).unwrap())) {
                break;
            }
        }
        latencies.push(sent.elapsed());
    }
    println!("settle: a lone client, {} bids; settled after {}", settings.bids, percentiles(latencies));
}

fn percentiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    format!("p50 {:.2?}, p90 {:.2?}, p99 {:.2?}, max {:.2?}", at(50), at(90), at(99), at(100))
}
