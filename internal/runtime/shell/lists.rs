//! Lists of what the platform knows.
//!
//! The rule this module protects: as many rows as were asked for, however many pages that takes, and a word when there are more.

use clap::Args;
use serde::Serialize;

use crate::api::proto::financing::v1::{
    Bid, BidStatus, Investor, Invoice, InvoiceStatus, Issuer, ListBidsRequest, ListInvestorsRequest,
    ListInvoicesRequest, ListIssuersRequest,
};
use crate::runtime::client::{ClientError, timed};
use crate::runtime::terminal::Tone;

use super::failure::{Failure, answered};
use super::show::{self, What};
use super::status::{self, BidFilter, InvoiceFilter, Status};
use super::table::{Cell, Column, Kind, Table};
use super::{PlatformAddresses, json, money};

/// The most rows that a page can have.
const LARGEST_PAGE: u32 = 1000;

/// How to list.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Only show what has seen this: the token of a command, or several, separated by commas
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Print JSON: one object a line
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// Which invoices.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    financing invoices\n  \
    financing invoices $INVOICE\n  \
    financing invoices --status available --issuer $ISSUER_1\n  \
    financing invoices --investor $INVESTOR_1 --json | jq -r .id")]
pub struct InvoicesArguments {
    /// Only this one, and the bid that won it
    #[arg(conflicts_with_all = ["issuer", "investor", "status", "limit"])]
    id: Option<String>,
    /// Only this issuer's
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    issuer: String,
    /// Only those that this investor's bid has won
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    investor: String,
    /// Only where they stand like this
    #[arg(long)]
    status: Option<InvoiceFilter>,
    /// How to list
    #[command(flatten)]
    list: ListArguments,
}

/// Which bids.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    financing bids\n  \
    financing bids $BID\n  \
    financing bids --invoice $INVOICE\n  \
    financing bids --investor $INVESTOR_1 --status won --json | jq -r .amount.decimal")]
pub struct BidsArguments {
    /// Only this one
    #[arg(conflicts_with_all = ["investor", "invoice", "status", "limit"])]
    id: Option<String>,
    /// Only this investor's
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    investor: String,
    /// Only those on this invoice
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    invoice: String,
    /// Only where they stand like this
    #[arg(long)]
    status: Option<BidFilter>,
    /// How to list
    #[command(flatten)]
    list: ListArguments,
}

/// Examples of `investors`.
pub const INVESTORS_EXAMPLES: &str = "Examples:\n  financing investors\n  financing investors $INVESTOR_1\n  \
    financing investors --name 'Investor 1' --json | jq -r .available.decimal";

/// Examples of `issuers`.
pub const ISSUERS_EXAMPLES: &str = "Examples:\n  financing issuers\n  financing issuers $ISSUER_1\n  \
    financing issuers --name 'Issuer 1' --json | jq -r .id";

/// Which issuers or investors.
#[derive(Debug, Clone, Args)]
pub struct PartiesArguments {
    /// Only this one
    #[arg(conflicts_with_all = ["name", "limit"])]
    id: Option<String>,
    /// Only those with exactly this name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// How to list
    #[command(flatten)]
    list: ListArguments,
}

/// Reads pages until there are enough rows; says whether there are more.
async fn rows<T>(
    limit: u32,
    mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), ClientError>,
) -> Result<(Vec<T>, bool), ClientError> {
    let (mut rows, mut next, mut left) = (Vec::new(), String::new(), limit);
    loop {
        let size = i32::try_from(left.min(LARGEST_PAGE)).unwrap_or(i32::MAX);
        let (more, token) = page(size, next).await?;
        left = left.saturating_sub(u32::try_from(more.len()).unwrap_or(u32::MAX));
        rows.extend(more);
        if token.is_empty() || left == 0 {
            return Ok((rows, !token.is_empty()));
        }
        next = token;
    }
}

/// What is printed of the rows. What is no row is said on standard error.
fn printed<T, J: Serialize + From<T>>(
    list: &ListArguments,
    what: &str,
    (rows, more): (Vec<T>, bool),
    table: impl Fn(&[T]) -> Table,
) -> String {
    if rows.is_empty() && !list.json {
        eprintln!("no {what}");
        return String::new();
    }
    if more {
        eprintln!("there are more {what}: --limit {} shows more of them", list.limit.saturating_mul(10));
    }
    if list.json {
        return rows.into_iter().map(|row| json::line(&J::from(row))).collect();
    }
    table(&rows).render(show::terminal())
}

/// Invoices.
pub(super) async fn invoices(arguments: InvoicesArguments) -> Result<String, Failure> {
    let InvoicesArguments { id, issuer, investor, status, list } = arguments;
    if let Some(id) = id {
        return show::one(What::Invoice, &list.platform, id, list.token, list.json).await;
    }
    let listed = async {
        let mut queries = list.platform.queries().await?;
        let status = status.map_or(InvoiceStatus::Unspecified, InvoiceStatus::from);
        let page = async |page_size, page_token| {
            let request = ListInvoicesRequest {
                page_size,
                page_token,
                issuer_id: issuer.clone(),
                investor_id: investor.clone(),
                status: status.into(),
                token: list.token.clone(),
            };
            let answer = queries.list_invoices(timed(request)).await?.into_inner();
            Ok((answer.invoices, answer.next_page_token))
        };
        let rows = rows(list.limit, page).await?;
        Ok(printed::<Invoice, json::Invoice>(&list, "invoices", rows, invoices_table))
    };
    answered(list.json, listed.await)
}

/// Bids.
pub(super) async fn bids(arguments: BidsArguments) -> Result<String, Failure> {
    let BidsArguments { id, investor, invoice, status, list } = arguments;
    if let Some(id) = id {
        return show::one(What::Bid, &list.platform, id, list.token, list.json).await;
    }
    let listed = async {
        let mut queries = list.platform.queries().await?;
        let status = status.map_or(BidStatus::Unspecified, BidStatus::from);
        let page = async |page_size, page_token| {
            let request = ListBidsRequest {
                page_size,
                page_token,
                investor_id: investor.clone(),
                invoice_id: invoice.clone(),
                status: status.into(),
                token: list.token.clone(),
            };
            let answer = queries.list_bids(timed(request)).await?.into_inner();
            Ok((answer.bids, answer.next_page_token))
        };
        let rows = rows(list.limit, page).await?;
        Ok(printed::<Bid, json::Bid>(&list, "bids", rows, bids_table))
    };
    answered(list.json, listed.await)
}

/// Investors.
pub(super) async fn investors(arguments: PartiesArguments) -> Result<String, Failure> {
    let PartiesArguments { id, name, list } = arguments;
    if let Some(id) = id {
        return show::one(What::Investor, &list.platform, id, list.token, list.json).await;
    }
    let listed = async {
        let mut queries = list.platform.queries().await?;
        let page = async |page_size, page_token| {
            let (name, token) = (name.clone(), list.token.clone());
            let request = ListInvestorsRequest { page_size, page_token, name, token };
            let answer = queries.list_investors(timed(request)).await?.into_inner();
            Ok((answer.investors, answer.next_page_token))
        };
        let rows = rows(list.limit, page).await?;
        Ok(printed::<Investor, json::Investor>(&list, "investors", rows, investors_table))
    };
    answered(list.json, listed.await)
}

/// Issuers.
pub(super) async fn issuers(arguments: PartiesArguments) -> Result<String, Failure> {
    let PartiesArguments { id, name, list } = arguments;
    if let Some(id) = id {
        return show::one(What::Issuer, &list.platform, id, list.token, list.json).await;
    }
    let listed = async {
        let mut queries = list.platform.queries().await?;
        let page = async |page_size, page_token| {
            let (name, token) = (name.clone(), list.token.clone());
            let request = ListIssuersRequest { page_size, page_token, name, token };
            let answer = queries.list_issuers(timed(request)).await?.into_inner();
            Ok((answer.issuers, answer.next_page_token))
        };
        let rows = rows(list.limit, page).await?;
        Ok(printed::<Issuer, json::Issuer>(&list, "issuers", rows, issuers_table))
    };
    answered(list.json, listed.await)
}

fn toned(Status { name, tone, .. }: Status) -> Cell {
    Cell::toned(name, tone)
}

fn invoices_table(invoices: &[Invoice]) -> Table {
    let mut table = Table::new(&[
        Column::heart("INVOICE", Kind::Id),
        Column::heart("ASKING PRICE", Kind::Number),
        Column::heart("STATUS", Kind::Text),
        Column::rest("ISSUER", Kind::Id),
        Column::rest("WON BY", Kind::Id),
    ]);
    for invoice in invoices {
        let winner = invoice.winning_bid.as_ref().map(|bid| bid.investor_id.as_str()).unwrap_or_default();
        table.push(vec![
            Cell::new(&invoice.id),
            Cell::new(money::optional(invoice.asking_price.as_ref())),
            toned(status::of_invoice(invoice)),
            Cell::toned(&invoice.issuer_id, Tone::Quiet),
            Cell::toned(winner, Tone::Quiet),
        ]);
    }
    table
}

fn bids_table(bids: &[Bid]) -> Table {
    let mut table = Table::new(&[
        Column::heart("BID", Kind::Id),
        Column::heart("AMOUNT", Kind::Number),
        Column::heart("STATUS", Kind::Text),
        Column::rest("INVESTOR", Kind::Id),
        Column::rest("INVOICE", Kind::Id),
        Column::rest("REASON", Kind::Text),
    ]);
    for bid in bids {
        table.push(vec![
            Cell::new(&bid.id),
            Cell::new(money::optional(bid.amount.as_ref())),
            toned(status::of_bid(bid)),
            Cell::toned(&bid.investor_id, Tone::Quiet),
            Cell::toned(&bid.invoice_id, Tone::Quiet),
            Cell::new(&bid.reason),
        ]);
    }
    table
}

fn investors_table(investors: &[Investor]) -> Table {
    let mut table = Table::new(&[
        Column::heart("NAME", Kind::Text),
        Column::heart("AVAILABLE", Kind::Number),
        Column::heart("RESERVED", Kind::Number),
        Column::heart("COMMITTED", Kind::Number),
        Column::rest("INVESTOR", Kind::Whole),
    ]);
    for investor in investors {
        let balances = [&investor.available, &investor.reserved, &investor.committed];
        let [available, reserved, committed] =
            balances.map(|money| Cell::new(money::optional(money.as_ref())));
        table.push(vec![Cell::new(&investor.name), available, reserved, committed, Cell::new(&investor.id)]);
    }
    table
}

fn issuers_table(issuers: &[Issuer]) -> Table {
    let mut table = Table::new(&[Column::heart("ISSUER", Kind::Id), Column::heart("NAME", Kind::Text)]);
    for issuer in issuers {
        table.push(vec![Cell::new(&issuer.id), Cell::new(&issuer.name)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use crate::runtime::terminal::Terminal;

    use super::*;

    /// A list of this many numbers, in pages.
    async fn listed(count: u32, limit: u32) -> (usize, bool, Vec<i32>) {
        let mut sizes = Vec::new();
        let page = async |size: i32, token: String| {
            sizes.push(size);
            let begin: u32 = token.parse().unwrap_or(0);
            let end = (begin + u32::try_from(size).unwrap()).min(count);
            let next = if end < count { end.to_string() } else { String::new() };
            Ok(((begin..end).collect::<Vec<_>>(), next))
        };
        let (rows, more) = rows(limit, page).await.unwrap();
        assert!(rows.iter().enumerate().all(|(index, row)| index == *row as usize));
        (rows.len(), more, sizes)
    }

    #[tokio::test]
    async fn pages_are_read_until_there_are_enough_rows() {
        assert_eq!(listed(5, 100).await, (5, false, vec![100]));
        assert_eq!(listed(500, 100).await, (100, true, vec![100]));
        assert_eq!(listed(2500, 2100).await, (2100, true, vec![1000, 1000, 100]));
        assert_eq!(listed(2000, 2000).await, (2000, false, vec![1000, 1000]));
        assert_eq!(listed(0, 1).await, (0, false, vec![1]));
    }

    #[test]
    fn an_invoice_fits_eighty_columns_with_its_whole_id() {
        let id = "01a1fda0-7b2c-7000-8000-000000000001";
        let amount = Some(crate::runtime::client::amount("1000000.00", "EUR").unwrap());
        let winning_bid = Some(crate::api::proto::financing::v1::WinningBid {
            bid_id: id.to_owned(),
            investor_id: id.to_owned(),
            amount: amount.clone(),
        });
        let mut invoice = Invoice {
            id: id.to_owned(),
            issuer_id: id.to_owned(),
            asking_price: amount,
            winning_bid,
            ..Invoice::default()
        };
        invoice.set_status(InvoiceStatus::Financed);
        let narrow = invoices_table(&[invoice.clone()]).render(Terminal::new(80, false));
        assert_eq!(
            narrow.lines().collect::<Vec<_>>()[1..],
            [
                format!("{id}  1000000.00 EUR  FINANCED").as_str(),
                "  issuer 01a1…00000001  won by 01a1…00000001"
            ]
        );
        let wide = invoices_table(&[invoice]).render(Terminal::new(160, false));
        assert_eq!(wide.lines().nth(1), Some(format!("{id}  1000000.00 EUR  FINANCED  {id}  {id}").as_str()));
    }
}
