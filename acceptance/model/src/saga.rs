//! The business, as small as it can be: what a command does to what is known, and what follows from a fact.
//!
//! The rule this module protects: it is the saga table and nothing else. No partition, no owner, no failure is known here.

use crate::{Bug, Scenario};

/// How reserved money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// All of a lost bid, back.
    Release,
    /// What a winning bid has more than the asking price, back.
    Excess,
    /// The asking price, paid.
    Commit,
    /// The asking price, back.
    Return,
}

/// What is asked for. Bids and invoices go by their numbers in the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// An investor places this bid.
    Bid(u8),
    /// The invoice looks at this bid.
    Process(u8),
    /// The investor's account moves so much of what is reserved for this bid.
    Move(u8, Kind, u8),
    /// The issuer accepts the financing of this invoice.
    Approve(u8),
    /// The issuer calls it off.
    Reverse(u8),
}

/// What a record says: a fact, or why there is none. Facts about an invoice name the bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// available -> reserved.
    Placed(u8),
    /// This bid won.
    Financed(u8),
    /// This bid lost.
    Rejected(u8),
    /// So much of this bid moved.
    Moved(u8, Kind, u8),
    /// Final: this bid is to be paid.
    Approved(u8),
    /// Final: this bid is not to be paid.
    Reversed(u8),
    /// A rule said no.
    Refused(Command),
    /// It was so already.
    Unchanged(Command),
}

/// Where an invoice stands; with the bid that won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invoice {
    Available,
    Financed(u8),
    Final(u8),
}

/// What a worker remembers of the aggregates of a partition: the fold of its log up to a head.
pub(crate) struct Books {
    available: [u8; 2],
    /// What is left of each bid's reservation, and whether its excess, and its asking price, have moved.
    open: [(u8, bool, bool); 4],
    invoices: [Invoice; 2],
}

impl Books {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self { available: scenario.funds, open: [(0, false, false); 4], invoices: [Invoice::Available; 2] }
    }

    /// Total: what a bug makes of it is for the properties to see.
    pub(crate) fn evolve(&mut self, scenario: &Scenario, said: Said) {
        match said {
            Said::Placed(bid) => {
                let (investor, _, amount) = scenario.bid(bid);
                self.available[investor] = self.available[investor].saturating_sub(amount);
                self.open[usize::from(bid)] = (amount, false, false);
            }
            Said::Moved(bid, kind, amount) => {
                let (left, excess, price) = &mut self.open[usize::from(bid)];
                *left = left.saturating_sub(amount);
                *excess |= kind == Kind::Excess;
                *price |= kind == Kind::Commit || kind == Kind::Return;
                self.available[scenario.bid(bid).0] += if kind == Kind::Commit { 0 } else { amount };
            }
            Said::Financed(bid) => self.invoices[scenario.bid(bid).1] = Invoice::Financed(bid),
            Said::Approved(bid) | Said::Reversed(bid) => {
                self.invoices[scenario.bid(bid).1] = Invoice::Final(bid);
            }
            Said::Rejected(_) | Said::Refused(_) | Said::Unchanged(_) => {}
        }
    }

    pub(crate) fn decide(&self, scenario: &Scenario, command: Command, bug: Option<Bug>) -> Said {
        match command {
            Command::Bid(bid) => {
                let (investor, _, amount) = scenario.bid(bid);
                let is_open = self.open[usize::from(bid)].0 > 0;
                if is_open || self.available[investor] < amount {
                    return Said::Refused(command);
                }
                Said::Placed(bid)
            }
            Command::Process(bid) => {
                let (_, invoice, amount) = scenario.bid(bid);
                match self.invoices.get(invoice) {
                    None => Said::Refused(command),
                    Some(Invoice::Available) if amount >= scenario.asking[invoice] => Said::Financed(bid),
                    Some(Invoice::Financed(winner) | Invoice::Final(winner)) if *winner == bid => {
                        Said::Unchanged(command)
                    }
                    Some(Invoice::Available | Invoice::Financed(_) | Invoice::Final(_)) => {
                        Said::Rejected(bid)
                    }
                }
            }
            Command::Move(bid, kind, amount) => {
                let (left, excess, price) = self.open[usize::from(bid)];
                let fits = match kind {
                    Kind::Release => !excess && !price && amount == left,
                    Kind::Excess => !excess && if price { amount == left } else { amount < left },
                    Kind::Commit | Kind::Return => {
                        !price && if excess { amount == left } else { amount <= left }
                    }
                };
                if bug == Some(Bug::ReleaseByTotal) && kind == Kind::Release {
                    let of_investor = |one: u8| scenario.bid(one).0 == scenario.bid(bid).0;
                    let total = (0..scenario.bids()).filter(|one| of_investor(*one));
                    let total = total.map(|one| self.open[usize::from(one)].0).sum();
                    return Said::Moved(bid, kind, total);
                }
                if left > 0 && fits { Said::Moved(bid, kind, amount) } else { Said::Refused(command) }
            }
            Command::Approve(invoice) => match self.invoices[usize::from(invoice)] {
                Invoice::Financed(bid) => Said::Approved(bid),
                Invoice::Available | Invoice::Final(_) => Said::Refused(command),
            },
            Command::Reverse(invoice) => match self.invoices[usize::from(invoice)] {
                Invoice::Financed(bid) => Said::Reversed(bid),
                Invoice::Available | Invoice::Final(_) => Said::Refused(command),
            },
        }
    }
}

/// The policies: what follows from what a record says.
pub(crate) fn react(scenario: &Scenario, said: Said) -> Option<Command> {
    let amount = |bid: u8| scenario.bid(bid).2;
    let asking = |bid: u8| scenario.asking[scenario.bid(bid).1];
    match said {
        Said::Placed(bid) => Some(Command::Process(bid)),
        Said::Rejected(bid) | Said::Refused(Command::Process(bid)) => {
            Some(Command::Move(bid, Kind::Release, amount(bid)))
        }
        Said::Financed(bid) if amount(bid) > asking(bid) => {
            Some(Command::Move(bid, Kind::Excess, amount(bid) - asking(bid)))
        }
        Said::Approved(bid) => Some(Command::Move(bid, Kind::Commit, asking(bid))),
        Said::Reversed(bid) => Some(Command::Move(bid, Kind::Return, asking(bid))),
        Said::Financed(_) | Said::Moved(..) | Said::Refused(_) | Said::Unchanged(_) => None,
    }
}
