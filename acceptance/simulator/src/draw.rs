//! Drawing a plan: a market of a few parties, and bad luck.
//!
//! The rule this module protects: everything that the business and its surroundings can do is drawn sometimes, and
//! most of it often, near in time to whatever it could disturb.

mod letters;

use domain::currency::Currency;
use domain::financing::Command;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::integration::{IntegrationEvent, InvestorRegistered, IssuerRegistered};
use domain::investor::{BidOnInvoice, InvestorCommand};
use domain::invoice::{ApproveFinancing, InvoiceCommand, ReverseFinancing, SellInvoice};
use domain::money::{Amount, Money, MoneyError};
use domain::name::Name;
use eventsourcing::testkit::world::Dice;
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::misfortune;
use crate::plan::{Act, Cast, Message, Plan, Streamed};

/// Fewer acts would be a quiet day.
const LEAST_ACTS: usize = 44;

/// Times of acts fall on multiples of this, in microseconds: so that clients meet.
const BEAT: u64 = 100_000;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        // Other dice than the schedule's, which is thrown with the seed itself.
        let mut dice = Dice::new(seed ^ 0x5ca1_ab1e_0ddb_a115);
        let partitions = [1, 2, 2, 3, 3, 4, 4][dice.below(7)];
        let limits = WorkerLimits {
            batch: 1 + dice.below(8),
            messages: 1 + dice.below(8),
            cached: 2 + dice.below(8),
            known: 1 + dice.below(3),
            snapshot_every: 1 + count(dice.below(5)),
            purge_every: 1 + count(dice.below(6)),
        };
        let mut market = Market::new(dice, partitions);
        market.registrations();
        market.sales();
        market.bids();
        market.decisions();
        market.oddities();
        market.repeats();
        market.strays();
        market.operations();
        let Market { mut dice, cast, acts, .. } = market;
        let last = acts.iter().map(|act| act.at).max().unwrap_or_default();
        let mishaps = misfortune::draw(&mut dice, partitions, &cast, last);
        Self { seed, partitions, limits, cast, acts, mishaps }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn minor(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(0)
}

/// A random id.
fn uuid(dice: &mut Dice) -> Uuid {
    uuid::Builder::from_random_bytes(
        ((u128::from(dice.roll()) << 64) | u128::from(dice.roll())).to_be_bytes(),
    )
    .into_uuid()
}

/// An id of a request's, as the listener makes it.
fn of_request(request_id: Uuid, kind: &[u8]) -> Uuid {
    Uuid::new_v5(&request_id, kind)
}

struct Invoice {
    id: InvoiceId,
    asking: i64,
    currency: Currency,
    sold_at: u64,
}

struct Investor {
    id: InvestorId,
    currency: Currency,
}

struct Market {
    dice: Dice,
    partitions: u16,
    cast: Cast,
    investors: Vec<Investor>,
    invoices: Vec<Invoice>,
    acts: Vec<Act>,
}

impl Market {
    fn new(mut dice: Dice, partitions: u16) -> Self {
        let mut cast = Cast::default();
        for _ in 0..2 + dice.below(3) {
            cast.issuers.push(uuid(&mut dice));
        }
        let mut investors = Vec::new();
        for number in 0..2 + dice.below(4) {
            // The first is often an issuer, too.
            let same_party = number == 0 && dice.percent(60);
            let id = if same_party { cast.issuers[0] } else { uuid(&mut dice) };
            cast.investors.push(id);
            let currency = if dice.percent(88) { Currency::EUR } else { Currency::USD };
            investors.push(Investor { id: InvestorId::new(id), currency });
        }
        Self { dice, partitions, cast, investors, invoices: Vec::new(), acts: Vec::new() }
    }

    /// A time not before this one, and at most so many beats later.
    fn after(&mut self, at: u64, beats: usize) -> u64 {
        at + count(self.dice.below(beats + 1)) * BEAT
    }

    fn act(&mut self, at: u64, message: Message) {
        let dice = &mut self.dice;
        let wait = dice.percent(70).then(|| [1_000, 2_500, 4_000][dice.below(3)]);
        let act = Act {
            number: self.acts.len() + 1,
            at,
            message,
            second_listener: dice.percent(50),
            wait,
            reads: dice.percent(75),
            tries: 2 + u8::try_from(dice.below(5)).unwrap_or(0),
            again: dice.percent(6),
        };
        self.acts.push(act);
    }

    fn command(&mut self, at: u64, request_id: Uuid, command: impl Into<Command>) {
        let message = Message::Command { id: of_request(request_id, b"command"), command: command.into() };
        self.act(at, message);
    }

    /// An event through one door or the other, sometimes through both.
    fn event(&mut self, at: u64, event: &IntegrationEvent) {
        let id = uuid(&mut self.dice);
        let streamed = self.dice.percent(50);
        let twice = self.dice.percent(20);
        if streamed || twice {
            let (what, payload) = (Streamed::Event(event.clone()), cloud_event(id, event));
            self.act(at, Message::Streamed { what, payload });
        }
        if !streamed || twice {
            self.act(at, Message::Published { id, event: event.clone() });
        }
    }

    fn registrations(&mut self) {
        for (number, id) in self.cast.issuers.clone().into_iter().enumerate() {
            // One in twenty-five comes so late that somebody may have sold in its name before.
            let latest = if self.dice.percent(4) { 12 } else { 2 };
            let at = self.after(0, latest);
            if let Some(event) = issuer(id, number, "") {
                self.event(at, &event);
            }
            if self.dice.percent(10)
                && let Some(event) = issuer(id, number, " & Sons")
            {
                let at = self.after(at, 8);
                self.event(at, &event);
            }
        }
        for (number, id) in self.cast.investors.clone().into_iter().enumerate() {
            let currency = self.investors[number].currency;
            let balance = if self.dice.percent(5) { 0 } else { 40_000 + minor(self.dice.below(210_000)) };
            let at = self.after(0, 2);
            if let Some(event) = investor(id, number, balance, currency) {
                self.event(at, &event);
                if self.dice.percent(8) {
                    let at = self.after(at, 10);
                    self.event(at, &event);
                }
            }
            if self.dice.percent(10)
                && let Some(event) = investor(id, number, balance + 1, currency)
            {
                let at = self.after(at, 8);
                self.event(at, &event);
            }
        }
    }

    fn sales(&mut self) {
        for _ in 0..5 + self.dice.below(4) {
            let request_id = uuid(&mut self.dice);
            let invoice_id = InvoiceId::new(of_request(request_id, b"invoice"));
            let ghost = self.dice.percent(5);
            let issuer_id = if ghost {
                uuid(&mut self.dice)
            } else {
                self.cast.issuers[self.dice.below(self.cast.issuers.len())]
            };
            let asking = 1_000 + minor(self.dice.below(25_000));
            let currency = if self.dice.percent(90) { Currency::EUR } else { Currency::USD };
            let sold_at = self.after(2 * BEAT, 14);
            let Ok(asking_price) = Amount::from_minor(asking, currency) else { continue };
            let sell = SellInvoice { invoice_id, issuer_id: IssuerId::new(issuer_id), asking_price };
            self.command(sold_at, request_id, InvoiceCommand::SellInvoice(sell));
            self.cast.invoices.push(invoice_id.as_uuid());
            self.invoices.push(Invoice { id: invoice_id, asking, currency, sold_at });
        }
    }

    fn bid(&mut self) -> Result<(), MoneyError> {
        let request_id = uuid(&mut self.dice);
        let bid_id = BidId::new(of_request(request_id, b"bid"));
        let dice = &mut self.dice;
        let invoice = &self.invoices[dice.below(self.invoices.len())];
        let (mut invoice_id, mut at) = (invoice.id, invoice.sold_at);
        let bidder = &self.investors[dice.below(self.investors.len())];
        let (mut investor_id, mut currency) = (bidder.id, bidder.currency);
        let (asking, others) = (invoice.asking, invoice.currency);
        let amount = match dice.below(100) {
            0..8 => asking,
            8..58 => asking + 1 + minor(dice.below(5_000)),
            58..82 => 1 + minor(dice.below(usize::try_from(asking).unwrap_or(1).saturating_sub(1).max(1))),
            82..90 => 250_001 + minor(dice.below(50_000)),
            90..94 => {
                currency = if currency == Currency::EUR { Currency::USD } else { Currency::EUR };
                asking
            }
            _ => {
                // What the invoice is sold in, which may not be what the account holds.
                currency = others;
                asking + minor(dice.below(10))
            }
        };
        if dice.percent(5) {
            invoice_id = InvoiceId::new(uuid(dice));
        }
        if dice.percent(3) {
            investor_id = InvestorId::new(uuid(dice));
        }
        // Few beats, so that several race; sometimes before the sale, sometimes late.
        let late = if dice.percent(25) { 16 } else { 4 };
        at = if dice.percent(6) { at.saturating_sub(2 * BEAT) } else { self.after(at, late) };
        let amount = Amount::from_minor(amount, currency)?;
        let bid = BidOnInvoice { investor_id, bid_id, invoice_id, amount };
        self.command(at, request_id, InvestorCommand::BidOnInvoice(bid));
        Ok(())
    }

    fn bids(&mut self) {
        let bids = 24 + self.dice.below(10);
        let least = LEAST_ACTS.saturating_sub(self.acts.len() + 8);
        for _ in 0..bids.max(least) {
            // An amount of nothing is not drawn; where it is too large, there is one bid less.
            let _too_large = self.bid();
        }
    }

    fn decisions(&mut self) {
        for number in 0..self.invoices.len() {
            let (invoice_id, sold_at) = (self.invoices[number].id, self.invoices[number].sold_at);
            let (approves, reverses) = match self.dice.below(100) {
                0..38 => (1, 0),
                38..62 => (0, 1),
                62..78 => (1, 1),
                78..86 => (2, 0),
                _ => (0, 0),
            };
            let first = self.after(sold_at + 2 * BEAT, 16);
            for _ in 0..approves {
                let (at, request_id) = (self.after(first, 3), uuid(&mut self.dice));
                let approve = ApproveFinancing { invoice_id };
                self.command(at, request_id, InvoiceCommand::ApproveFinancing(approve));
            }
            for _ in 0..reverses {
                let (at, request_id) = (self.after(first, 3), uuid(&mut self.dice));
                let reverse = ReverseFinancing { invoice_id };
                self.command(at, request_id, InvoiceCommand::ReverseFinancing(reverse));
            }
        }
    }

    /// What happens seldom, and to people who know more than the listener lets them say.
    fn oddities(&mut self) {
        if self.dice.percent(15) {
            let (at, request_id) = (self.after(0, 30), uuid(&mut self.dice));
            let approve = ApproveFinancing { invoice_id: InvoiceId::new(uuid(&mut self.dice)) };
            self.command(at, request_id, InvoiceCommand::ApproveFinancing(approve));
        }
        for terms in 0..2 {
            if self.dice.percent(15) {
                self.sell_again(terms);
            }
        }
        if self.dice.percent(25) {
            let partition = u16::try_from(self.dice.below(usize::from(self.partitions))).unwrap_or(0);
            let (at, word) = (self.after(0, 30), self.dice.roll());
            let payload = format!("[{{\"stray\":{word}}}]").into_bytes();
            self.act(at, Message::Stray { partition, payload });
        }
        for malformed in [true, false] {
            if self.dice.percent(25) {
                let (at, id) = (self.after(0, 20), uuid(&mut self.dice));
                let (what, event_type) = if malformed {
                    (Streamed::Malformed, domain::integration::ISSUER_REGISTERED)
                } else {
                    (Streamed::Ignored, "registering.v1.SomethingElse")
                };
                let payload = format!(
                    r#"{{"specversion":"1.0","id":"{id}","source":"/registering","type":"{event_type}","data":{{}}}}"#
                );
                self.act(at, Message::Streamed { what, payload: payload.into_bytes() });
            }
        }
    }

    /// The same invoice once more: on the same terms it is unchanged, on others it is refused.
    fn sell_again(&mut self, other_terms: i64) {
        let sales: Vec<(u64, SellInvoice)> = self
            .acts
            .iter()
            .filter_map(|act| match &act.message {
                Message::Command { command: Command::Invoice(InvoiceCommand::SellInvoice(sell)), .. } => {
                    Some((act.at, sell.clone()))
                }
                Message::Command { .. }
                | Message::Published { .. }
                | Message::Streamed { .. }
                | Message::Operated { .. }
                | Message::Stray { .. } => None,
            })
            .collect();
        let (at, sell) = sales[self.dice.below(sales.len())].clone();
        let price = sell.asking_price;
        let Ok(asking_price) = Amount::from_minor(price.minor() + other_terms, price.currency()) else {
            return;
        };
        let (at, request_id) = (self.after(at, 12), uuid(&mut self.dice));
        self.command(at, request_id, InvoiceCommand::SellInvoice(SellInvoice { asking_price, ..sell }));
    }

    /// The same request again, now or later, through whichever listener; or its id for something else.
    fn repeats(&mut self) {
        let originals = self.acts.len();
        for _ in 0..3 + self.dice.below(4) {
            let original = self.acts[self.dice.below(originals)].clone();
            if let Message::Command { .. } | Message::Published { .. } = original.message {
                let at = self.after(original.at, 15);
                self.act(at, original.message);
            }
        }
        for _ in 0..=self.dice.below(2) {
            let (one, other) = (self.dice.below(originals), self.dice.below(originals));
            let (one, other) = (self.acts[one].clone(), self.acts[other].clone());
            if let (Message::Command { id, command: first }, Message::Command { command, .. }) =
                (one.message, other.message)
                && first != command
                && !matches!(command, Command::Investor(InvestorCommand::BidOnInvoice(_)))
            {
                let at = self.after(one.at, 10);
                self.act(at, Message::Command { id, command });
            }
        }
    }
}

fn issuer(id: Uuid, number: usize, more: &str) -> Option<IntegrationEvent> {
    let name = Name::try_new(format!("Issuer {}{more}", letter(number))).ok()?;
    Some(IntegrationEvent::IssuerRegistered(IssuerRegistered { issuer_id: IssuerId::new(id), name }))
}

fn investor(id: Uuid, number: usize, balance: i64, currency: Currency) -> Option<IntegrationEvent> {
    let name = Name::try_new(format!("Investor {}", number + 1)).ok()?;
    let balance = Money::from_minor(balance, currency).ok()?;
    let investor_id = InvestorId::new(id);
    Some(IntegrationEvent::InvestorRegistered(InvestorRegistered { investor_id, name, balance }))
}

/// A, B, C.
pub(crate) fn letter(number: usize) -> char {
    char::from(b'A' + u8::try_from(number % 26).unwrap_or(0))
}

fn cloud_event(id: Uuid, event: &IntegrationEvent) -> Vec<u8> {
    let event_type = event.event_type();
    let data = event.encode().unwrap_or_default();
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/registering","type":"{event_type}","data":{data}}}"#
    )
    .into_bytes()
}
