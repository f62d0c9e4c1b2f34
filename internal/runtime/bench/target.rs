//! The platform that is measured, as its clients see it.
//!
//! The rule this module protects: a run has issuers and investors of its own, so what it counts at the end is what it did, whatever
//! else the platform has stored or is doing.

use domain::money::Money as Exact;
use eventsourcing::environment::Environment as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::api::proto::financing::v1::command_service_client::CommandServiceClient;
use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::financing::v1::{
    GetInvestorRequest, GetPlatformRequest, InvoiceStatus, ListInvoicesRequest, LogPosition, Money, Platform,
    WaitCommandRequest,
};
use crate::api::proto::registering::v1::{
    IntegrationEvent, InvestorRegistered, IssuerRegistered, PublishIntegrationEventsRequest,
    integration_event::Event,
};
use crate::runtime::client::{ClientError, Commands, Queries, connect, timed};
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::shell::PlatformAddresses;

use super::books::Books;

/// What every invoice is sold for, in units of the currency.
pub(super) const ASKING: i64 = 100;
/// What is bid for it: one unit comes back.
pub(super) const BID: i64 = 101;
/// What every investor brings, in units of the currency: enough for years.
const BALANCE: i64 = 1_000_000_000;
/// Registrations in one call: far below the limit of a request.
const CHUNK: usize = 200;
/// How many answers are waited for at once.
const WAITING: usize = 64;
/// How often it is looked for the last commands: each time for as long as the platform waits where it is not told how long, half a
/// minute.
const LOOKS: u32 = 10;
/// How many invoices are listed at a time: the most there may be.
const PAGE: i32 = 1000;

/// The platform, and who of it belongs to this run.
pub(super) struct Target {
    commands: Vec<CommandServiceClient<Channel>>,
    queries: Vec<QueryServiceClient<Channel>>,
    /// What it says of itself.
    pub(super) platform: Platform,
    /// One for each partition.
    pub(super) issuers: Vec<String>,
    /// As many as were asked for.
    pub(super) investors: Vec<String>,
    /// Behind the registrations of the issuers: nothing of this run is before that.
    pub(super) begin: Vec<LogPosition>,
}

impl Target {
    /// Connects, and registers one issuer for each partition and these investors.
    pub(super) async fn prepare(
        addresses: &PlatformAddresses,
        connections: usize,
        investors: usize,
    ) -> Result<Self, ClientError> {
        let (mut commands, mut queries) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            commands.push(Commands::new(connect(&addresses.command_addr).await?).client());
            queries.push(Queries::new(connect(&addresses.query_addr).await?).client());
        }
        let mut target = Self {
            commands,
            queries,
            platform: Platform::default(),
            issuers: Vec::new(),
            investors: Vec::new(),
            begin: Vec::new(),
        };
        let answer = target.queries(0).get_platform(timed(GetPlatformRequest {})).await?;
        target.platform = answer.into_inner().platform.unwrap_or_default();
        let partitions = u128::from(target.platform.partitions.max(1));

        let issuers: Vec<Uuid> = (0..partitions).map(|partition| id_in(partition, partitions)).collect();
        let events = issuers.iter().enumerate().map(|(number, issuer)| {
            let name = format!("Bench issuer {number}");
            Event::IssuerRegistered(IssuerRegistered { issuer_id: issuer.to_string(), name })
        });
        let tokens = target.register(addresses, events.collect()).await?;
        target.begin = tokens.iter().filter_map(|token| position(token)).collect();
        target.issuers = issuers.iter().map(Uuid::to_string).collect();

        let investors: Vec<Uuid> = (0..investors).map(|_| SystemEnvironment.uuid()).collect();
        let events = investors.iter().enumerate().map(|(number, investor)| {
            Event::InvestorRegistered(InvestorRegistered {
                investor_id: investor.to_string(),
                name: format!("Bench investor {number}"),
                balance: Some(eur(BALANCE)),
            })
        });
        target.register(addresses, events.collect()).await?;
        target.investors = investors.iter().map(Uuid::to_string).collect();
        Ok(target)
    }

    /// The command side, over one of the connections.
    pub(super) fn commands(&self, number: usize) -> CommandServiceClient<Channel> {
        pick(&self.commands, number)
    }

    /// The query side, over one of the connections.
    pub(super) fn queries(&self, number: usize) -> QueryServiceClient<Channel> {
        pick(&self.queries, number)
    }

    /// Answers with the token of each, in order.
    async fn register(
        &self,
        addresses: &PlatformAddresses,
        events: Vec<Event>,
    ) -> Result<Vec<String>, ClientError> {
        let commands = Commands::new(connect(&addresses.command_addr).await?);
        let events: Vec<IntegrationEvent> = events
            .into_iter()
            .map(|event| IntegrationEvent { event: Some(event), event_id: String::new() })
            .collect();
        let mut command_ids = Vec::with_capacity(events.len());
        for chunk in events.chunks(CHUNK) {
            let request = PublishIntegrationEventsRequest { events: chunk.to_vec() };
            let answer = commands.integration().publish_integration_events(timed(request)).await?;
            command_ids.extend(answer.into_inner().command_ids);
        }
        self.projected(command_ids).await
    }

    /// Waits until queries see what these commands did. Answers with the token of each, in order.
    async fn projected(&self, command_ids: Vec<String>) -> Result<Vec<String>, ClientError> {
        let tokens = self.tokens(&command_ids).await?;
        let late = |command_id: &String| {
            ClientError::Failed(format!(
                "the platform has accepted command {command_id}, but not decided it in time"
            ))
        };
        command_ids.iter().zip(tokens).map(|(id, token)| token.ok_or_else(|| late(id))).collect()
    }

    /// Waits until queries see what these commands did, as long as they see more and more, for some minutes at most. Answers with how
    /// many they do not see.
    pub(super) async fn drained(&self, command_ids: Vec<String>) -> Result<usize, ClientError> {
        let waiting = async |command_ids: Vec<String>| {
            let tokens = self.tokens(&command_ids).await?;
            let waiting = command_ids.into_iter().zip(tokens).filter(|(_, token)| token.is_none());
            Ok(waiting.map(|(command_id, _)| command_id).collect())
        };
        let seen = async || {
            let mut books = Books::default();
            self.read_invoices("", &mut books).await.map(|()| books.invoices)
        };
        drain(command_ids, waiting, seen).await
    }

    /// The token of each, in order; `None` where queries have not seen what it did within the platform's patience.
    async fn tokens(&self, command_ids: &[String]) -> Result<Vec<Option<String>>, ClientError> {
        stream::iter(command_ids.iter().cloned().enumerate())
            .map(|(number, command_id)| {
                let mut queries = self.queries(number);
                async move {
                    let request = WaitCommandRequest { command_id, wait: None };
                    let answer = queries.wait_command(timed(request)).await?.into_inner();
                    let command = answer.command.unwrap_or_default();
                    Ok((!command.token.is_empty()).then_some(command.token))
                }
            })
            .buffered(WAITING)
            .try_collect()
            .await
    }

    /// Reads into the books what queries know of this run, once they have seen these positions.
    pub(super) async fn read(&self, token: &str, books: &mut Books) -> Result<(), ClientError> {
        self.read_invoices(token, books).await?;
        self.read_investors(token, books).await
    }

    async fn read_invoices(&self, token: &str, books: &mut Books) -> Result<(), ClientError> {
        (books.invoices, books.approved, books.owed) = (0, 0, 0);
        for (number, issuer_id) in self.issuers.iter().enumerate() {
            let mut queries = self.queries(number);
            let mut page_token = String::new();
            loop {
                let request = ListInvoicesRequest {
                    page_size: PAGE,
                    page_token,
                    issuer_id: issuer_id.clone(),
                    token: token.to_owned(),
                    ..ListInvoicesRequest::default()
                };
                let page = queries.list_invoices(timed(request)).await?.into_inner();
                for invoice in page.invoices {
                    books.invoices += 1;
                    if invoice.status() == InvoiceStatus::Approved {
                        books.approved += 1;
                        books.owed += cents(invoice.asking_price.as_ref())?;
                    }
                }
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn read_investors(&self, token: &str, books: &mut Books) -> Result<(), ClientError> {
        (books.funded, books.available, books.reserved, books.committed) = (0, 0, 0, 0);
        for (number, investor_id) in self.investors.iter().enumerate() {
            let request = GetInvestorRequest { investor_id: investor_id.clone(), token: token.to_owned() };
            let answer = self.queries(number).get_investor(timed(request)).await?.into_inner();
            let investor = answer.investor.unwrap_or_default();
            books.funded += cents(Some(&eur(BALANCE)))?;
            books.available += cents(investor.available.as_ref())?;
            books.reserved += cents(investor.reserved.as_ref())?;
            books.committed += cents(investor.committed.as_ref())?;
        }
        Ok(())
    }
}

/// Looks again and again for commands of which queries do not see what they did, unless nothing has gone on from one look to the
/// next: neither with these, nor with what queries see at all. Answers with how many are left.
async fn drain(
    mut waiting: Vec<String>,
    look: impl AsyncFn(Vec<String>) -> Result<Vec<String>, ClientError>,
    seen: impl AsyncFn() -> Result<u64, ClientError>,
) -> Result<usize, ClientError> {
    let mut before = 0;
    for _ in 0..LOOKS {
        let left = look(waiting.clone()).await?;
        let went_on = left.len() < waiting.len();
        waiting = left;
        if waiting.is_empty() {
            break;
        }
        let now = seen().await?;
        if !went_on && now <= before {
            break;
        }
        before = now;
    }
    Ok(waiting.len())
}

fn pick<T: Clone>(of: &[T], number: usize) -> T {
    // There is at least one connection: the arguments are checked.
    of[number % of.len()].clone()
}

/// An id that lives in this partition.
fn id_in(partition: u128, partitions: u128) -> Uuid {
    let id = SystemEnvironment.uuid().as_u128();
    Uuid::from_u128(id - id % partitions + partition)
}

/// What a token says.
pub(super) fn position(token: &str) -> Option<LogPosition> {
    let (partition, sequence) = token.split_once('-')?;
    Some(LogPosition { partition: partition.parse().ok()?, sequence: sequence.parse().ok()? })
}

/// An amount of the benchmark's currency.
pub(super) fn eur(units: i64) -> Money {
    Money { currency_code: "EUR".to_owned(), units, nanos: 0 }
}

fn cents(money: Option<&Money>) -> Result<i128, ClientError> {
    let unreadable =
        || ClientError::Failed(format!("the platform answers with an amount that is none: {money:?}"));
    let money = money.ok_or_else(unreadable)?;
    let exact =
        Exact::from_wire(&money.currency_code, money.units, money.nanos).map_err(|_no| unreadable())?;
    Ok(exact.minor().into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use eventsourcing::partition::PartitionCount;

    /// How many of three commands are left, and after how many looks, where a look finds one of them and queries see so much.
    async fn drained(finds: impl Fn(u64) -> bool, sees: impl Fn(u64) -> u64) -> (usize, u64) {
        let looks = Cell::new(0);
        let look = async |mut waiting: Vec<String>| {
            looks.set(looks.get() + 1);
            if finds(looks.get()) {
                waiting.pop();
            }
            Ok(waiting)
        };
        let left = drain(vec![String::new(); 3], look, async || Ok(sees(looks.get()))).await;
        (left.unwrap(), looks.get())
    }

    #[tokio::test]
    async fn the_last_commands_are_waited_for_as_long_as_anything_goes_on() {
        assert_eq!(drained(|_| true, |_| 0).await, (0, 3));
        assert_eq!(drained(|look| look > 5, |look| 100 * look).await, (0, 8), "a backlog");
        assert_eq!(drained(|_| false, |_| 100).await, (3, 2), "it stands still");
        assert_eq!(drained(|look| look == 1, |_| 100).await, (2, 2));
        assert_eq!(drained(|_| false, |look| look).await, (3, LOOKS.into()), "not for ever");
    }

    #[test]
    fn an_id_is_made_for_any_partition() {
        for partitions in [1, 3, 16, 1024] {
            let count = PartitionCount::new(partitions).unwrap();
            for partition in 0..partitions {
                let id = id_in(partition.into(), partitions.into());
                assert_eq!(count.partition_of(id).index(), partition);
                assert_eq!(id.get_version_num(), 7);
            }
        }
    }
}
