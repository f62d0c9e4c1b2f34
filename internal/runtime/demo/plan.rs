//! What a demo does, decided before it begins.
//!
//! The rule this module protects: the same seed and the same number of invoices give the same plan, to the cent and to the id, on every
//! machine. So whoever runs it again repeats the same requests, and they act once.

use domain::currency::Currency;
use domain::money::{Money, MoneyError};
use uuid::Uuid;

use crate::api::ids::{self, Kind as IdKind};
use crate::api::proto::financing::v1;
use crate::runtime::environment::SystemEnvironment;

/// Raised whenever the same seed gives another plan than before: another plan under the same ids would be refused.
const PLAN: u32 = 1;

/// The currency of everything.
pub(super) const CURRENCY: Currency = Currency::EUR;

/// How many sell, and how many invest. The last of each are the same party.
const ISSUERS: [&str; 3] = ["Issuer A", "Issuer B", "Issuer C"];
const INVESTORS: [&str; 5] = ["Investor 1", "Investor 2", "Investor 3", "Investor 4", "Investor 5"];

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Party {
    /// The id that it registers with.
    pub(super) id: Uuid,
    /// Its name.
    pub(super) name: &'static str,
    /// What it opens with, in cents; nothing, for an issuer.
    pub(super) opens_with: i64,
}

/// A bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// Which of the investors.
    pub(super) investor: usize,
    /// How much, in cents.
    pub(super) cents: i64,
    /// What makes a repeat a repeat.
    pub(super) request: Uuid,
}

impl Offer {
    /// The bid's id.
    pub(super) fn bid_id(&self) -> Uuid {
        ids::id(&SystemEnvironment, Some(self.request), IdKind::Bid)
    }
}

/// One step of what happens to an invoice. Each begins when the one before has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A bid that wins.
    Win(Offer),
    /// A bid that loses, for this reason.
    Lose(Offer, &'static str),
    /// Bids at the same moment: one wins, and the platform says which.
    Race(Vec<Offer>),
    /// A bid that is sent twice at the same moment, acts once, and wins.
    Twice(Offer),
    /// A bid of more than the investor has.
    Overdraw(Offer),
    /// The issuer approves.
    Approve(Uuid),
    /// The issuer reverses.
    Reverse(Uuid),
    /// The issuer approves what is decided already.
    ApproveAgain(Uuid),
    /// The issuer reverses what is decided already.
    ReverseAfterwards(Uuid),
}

/// An invoice, and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lot {
    /// Its number, from 1.
    pub(super) number: u32,
    /// Which of the issuers sells it.
    pub(super) issuer: usize,
    /// What is asked for it, in cents.
    pub(super) asking_price: i64,
    /// What makes a repeat a repeat.
    pub(super) request: Uuid,
    /// What happens to it.
    pub(super) steps: Vec<Step>,
}

impl Lot {
    /// The invoice's id.
    pub(super) fn invoice_id(&self) -> Uuid {
        ids::id(&SystemEnvironment, Some(self.request), IdKind::Invoice)
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Who sells.
    pub(super) issuers: Vec<Party>,
    /// Who invests.
    pub(super) investors: Vec<Party>,
    /// What is sold.
    pub(super) lots: Vec<Lot>,
    /// A bid on an invoice that does not exist, and that invoice.
    pub(super) stray: (Offer, Uuid),
}

/// The stories that invoices have, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Approved,
    TooLate,
    Reversed,
    Overdrawn,
    Race,
    TooLow,
    ApprovedTwice,
    OwnInvoice,
    SentTwice,
    Unsold,
}

const STORIES: [Story; 10] = [
    Story::Approved,
    Story::TooLate,
    Story::Reversed,
    Story::Overdrawn,
    Story::Race,
    Story::TooLow,
    Story::ApprovedTwice,
    Story::OwnInvoice,
    Story::SentTwice,
    Story::Unsold,
];

/// Money on the wire.
pub(super) fn wire(cents: i64) -> Result<v1::Money, MoneyError> {
    Money::from_minor(cents, CURRENCY).map(v1::Money::from)
}

/// The id of the command that a request makes.
pub(super) fn command_id(request: Uuid) -> Uuid {
    ids::id(&SystemEnvironment, Some(request), IdKind::Command)
}

/// Ids and numbers out of a seed: each is a name under it.
#[derive(Debug)]
struct Dice {
    space: Uuid,
    drawn: u64,
}

impl Dice {
    fn of(seed: &str, invoices: u32) -> Self {
        let name = format!("financing demo/{PLAN}/{invoices}/{seed}");
        Self { space: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()), drawn: 0 }
    }

    fn id(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::new_v5(&self.space, &self.drawn.to_be_bytes())
    }

    /// A number below this one.
    fn below(&mut self, end: u32) -> u32 {
        let (_, low) = self.id().as_u64_pair();
        // The upper bits hold the UUID's variant; and less than a u32 fits into a u32.
        u32::try_from((low & u64::from(u32::MAX)) % u64::from(end.max(1))).unwrap_or_default()
    }

    fn one_of(&mut self, count: usize) -> usize {
        let end = u32::try_from(count).unwrap_or(u32::MAX);
        usize::try_from(self.below(end)).unwrap_or_default()
    }

    /// Any investor but this one.
    fn another(&mut self, investor: usize) -> usize {
        (investor + 1 + self.one_of(INVESTORS.len() - 1)) % INVESTORS.len()
    }

    fn offer(&mut self, investor: usize, cents: i64) -> Offer {
        Offer { investor, cents, request: self.id() }
    }

    /// More than is asked for.
    fn above(&mut self, asking_price: i64) -> i64 {
        asking_price + 1 + i64::from(self.below(9_999))
    }

    /// Less than is asked for, which is more than a hundred.
    fn below_price(&mut self, asking_price: i64) -> i64 {
        asking_price - 1 - i64::from(self.below(9_999))
    }
}

impl Plan {
    /// What this seed says.
    pub(super) fn of(seed: &str, invoices: u32) -> Self {
        let mut dice = Dice::of(seed, invoices);
        let mut party = |name| Party { id: dice.id(), name, opens_with: 0 };
        let issuers: Vec<Party> = ISSUERS.into_iter().map(&mut party).collect();
        let mut investors: Vec<Party> = INVESTORS.into_iter().map(&mut party).collect();
        if let (Some(issuer), Some(investor)) = (issuers.last(), investors.last_mut()) {
            investor.id = issuer.id;
        }
        let stories = STORIES.into_iter().cycle();
        let lots: Vec<Lot> =
            (1..=invoices).zip(stories).map(|(number, story)| lot(&mut dice, number, story)).collect();
        let investor = dice.one_of(INVESTORS.len());
        let cents = dice.above(10_000);
        let stray = (dice.offer(investor, cents), dice.id());
        let mut plan = Self { issuers, investors, lots, stray };
        plan.open();
        plan
    }

    /// The bids that are placed, in the order of the plan.
    pub(super) fn offers(&self) -> impl Iterator<Item = &Offer> {
        let of_lots = self.lots.iter().flat_map(|lot| &lot.steps).flat_map(|step| match step {
            Step::Win(offer) | Step::Lose(offer, _) | Step::Twice(offer) => std::slice::from_ref(offer),
            Step::Race(offers) => offers,
            Step::Overdraw(_)
            | Step::Approve(_)
            | Step::Reverse(_)
            | Step::ApproveAgain(_)
            | Step::ReverseAfterwards(_) => &[],
        });
        of_lots.chain(std::iter::once(&self.stray.0))
    }

    /// Gives everybody enough for all their bids at once, in whatever order they come; and asks for more where one is to be refused.
    fn open(&mut self) {
        for index in 0..self.investors.len() {
            let bids: i64 =
                self.offers().filter(|offer| offer.investor == index).map(|offer| offer.cents).sum();
            if let Some(investor) = self.investors.get_mut(index) {
                investor.opens_with = (bids / 10_000 + 1) * 10_000;
            }
        }
        for step in self.lots.iter_mut().flat_map(|lot| &mut lot.steps) {
            if let Step::Overdraw(offer) = step {
                offer.cents += self.investors.get(offer.investor).map_or(0, |investor| investor.opens_with);
            }
        }
    }
}

/// An invoice with its story.
fn lot(dice: &mut Dice, number: u32, story: Story) -> Lot {
    // From 100.01 to 1,100.00.
    let asking_price = 10_001 + i64::from(dice.below(100_000));
    let (last_issuer, own) = (ISSUERS.len() - 1, INVESTORS.len() - 1);
    // Nobody finances their own invoices, unless that is the story.
    let issuer = if story == Story::OwnInvoice { last_issuer } else { dice.one_of(last_issuer) };
    let one = dice.one_of(own);
    let other = dice.another(one);
    let (more, even_more) = (dice.above(asking_price), dice.above(asking_price));
    let winner = dice.offer(one, more);
    let exactly = Offer { cents: asking_price, ..winner };
    let decision = dice.id();
    let request = dice.id();
    let steps = match story {
        Story::Approved => vec![Step::Win(winner), Step::Approve(decision)],
        Story::TooLate => {
            let late = dice.offer(other, even_more);
            vec![Step::Win(winner), Step::Lose(late, "INVOICE_NOT_AVAILABLE"), Step::Approve(decision)]
        }
        Story::Reversed => vec![Step::Win(winner), Step::Reverse(decision)],
        Story::Overdrawn => {
            let overdraft = i64::from(dice.below(10_000)) + 1;
            vec![Step::Overdraw(dice.offer(other, overdraft)), Step::Win(winner), Step::Approve(decision)]
        }
        Story::Race => {
            let mut racers = vec![winner];
            racers.extend((1..3).map(|ahead| dice.offer((one + ahead) % INVESTORS.len(), even_more + 1)));
            vec![Step::Race(racers), Step::Approve(decision)]
        }
        Story::TooLow => {
            let low = dice.below_price(asking_price);
            let low = dice.offer(other, low);
            vec![Step::Lose(low, "BID_BELOW_ASKING_PRICE"), Step::Win(exactly), Step::Approve(decision)]
        }
        Story::ApprovedTwice => vec![
            Step::Win(exactly),
            Step::Approve(decision),
            Step::ApproveAgain(dice.id()),
            Step::ReverseAfterwards(dice.id()),
        ],
        Story::OwnInvoice => {
            let own = dice.offer(own, even_more);
            vec![Step::Lose(own, "SELF_FINANCING"), Step::Win(winner), Step::Reverse(decision)]
        }
        Story::SentTwice => vec![Step::Twice(winner), Step::Approve(decision)],
        Story::Unsold => {
            let low = dice.below_price(asking_price);
            vec![Step::Lose(dice.offer(other, low), "BID_BELOW_ASKING_PRICE")]
        }
    };
    Lot { number, issuer, asking_price, request, steps }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let plan = Plan::of("spring", 12);
        assert_eq!(Plan::of("spring", 12), plan);
        assert_ne!(Plan::of("summer", 12), plan);
        // Whoever has run a seed runs the same requests with the next release, too, or raises PLAN.
        assert_eq!(plan.lots[0].invoice_id().to_string(), "e5eb2895-2eb5-5def-8277-1df8e85d69d4");
        assert_eq!((plan.lots[0].asking_price, plan.investors[0].opens_with), (17_964, 180_000));
    }

    #[test]
    fn no_id_is_used_twice() {
        let plan = Plan::of("spring", 40);
        let requests: Vec<Uuid> =
            plan.offers().map(|offer| offer.request).chain(plan.lots.iter().map(|lot| lot.request)).collect();
        assert_eq!(requests.iter().collect::<BTreeSet<_>>().len(), requests.len());
        // With another number of invoices the investors open with another balance, so they are others.
        assert_ne!(Plan::of("spring", 41).investors[0].id, plan.investors[0].id);
    }

    #[test]
    fn everybody_can_pay_for_all_their_bids_and_nobody_for_one_that_is_to_be_refused() {
        for seed in 0..50 {
            let plan = Plan::of(&seed.to_string(), 20);
            for (index, investor) in plan.investors.iter().enumerate() {
                let bids: i64 =
                    plan.offers().filter(|offer| offer.investor == index).map(|offer| offer.cents).sum();
                assert!(investor.opens_with >= bids, "{seed}");
            }
            for lot in &plan.lots {
                for step in &lot.steps {
                    match step {
                        Step::Overdraw(offer) => {
                            assert!(offer.cents > plan.investors[offer.investor].opens_with);
                        }
                        Step::Lose(offer, "BID_BELOW_ASKING_PRICE") => {
                            assert!((1..lot.asking_price).contains(&offer.cents), "{seed}");
                        }
                        Step::Lose(offer, "SELF_FINANCING") => {
                            assert_eq!(plan.investors[offer.investor].id, plan.issuers[lot.issuer].id);
                        }
                        Step::Win(offer) | Step::Twice(offer) | Step::Lose(offer, _) => {
                            assert!(offer.cents >= lot.asking_price, "{seed}");
                            assert_ne!(plan.investors[offer.investor].id, plan.issuers[lot.issuer].id);
                        }
                        Step::Race(offers) => {
                            let racers: BTreeSet<usize> = offers.iter().map(|offer| offer.investor).collect();
                            assert_eq!(racers.len(), offers.len());
                        }
                        Step::Approve(_)
                        | Step::Reverse(_)
                        | Step::ApproveAgain(_)
                        | Step::ReverseAfterwards(_) => {}
                    }
                }
            }
        }
    }
}
