//! What an investor's account sets aside for one bid.
//!
//! The rule this module protects: every reserved unit leaves the reservation exactly once. A reservation belongs to one
//! bid, is never empty (it is closed instead), and knows which of its parts are still there:
//!
//! | still there | RELEASE | EXCESS | COMMIT, RETURN |
//! |---|---|---|---|
//! | everything | all of it | a part of it | a part, or all of it where nothing exceeds the asking price |
//! | the asking price (the excess is gone) | - | - | exactly what is left |
//! | the excess (the asking price is gone) | - | exactly what is left | - |

use serde::{Deserialize, Serialize};

use crate::coded::coded;
use crate::ids::{BidId, InvoiceId};
use crate::money::{Amount, Money};
use crate::refusal::Refusal;

coded! {
    /// How reserved money moves. Each happens at most once per bid.
    pub enum Move {
        /// All of a lost bid becomes available again.
        Release = "RELEASE",
        /// What exceeds the asking price becomes available again.
        Excess = "EXCESS",
        /// The asking price becomes available again, because the financing was reversed.
        Return = "RETURN",
        /// The asking price is paid.
        Commit = "COMMIT",
    }
}

coded! {
    /// The moves that make reserved money available again.
    pub enum ReleaseKind {
        /// All of a lost bid.
        Release = "RELEASE",
        /// What exceeds the asking price.
        Excess = "EXCESS",
        /// The asking price, because the financing was reversed.
        Return = "RETURN",
    }
}

impl From<ReleaseKind> for Move {
    fn from(kind: ReleaseKind) -> Self {
        match kind {
            ReleaseKind::Release => Self::Release,
            ReleaseKind::Excess => Self::Excess,
            ReleaseKind::Return => Self::Return,
        }
    }
}

/// Money set aside for one bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    invoice_id: InvoiceId,
    left: Amount,
    part: Part,
}

/// Which part of the bid is still reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Part {
    Everything,
    AskingPrice,
    Excess,
}

impl Reservation {
    /// Sets a whole bid aside.
    #[must_use]
    pub const fn new(invoice_id: InvoiceId, amount: Amount) -> Self {
        Self { invoice_id, left: amount, part: Part::Everything }
    }

    /// The invoice that the bid is on.
    #[must_use]
    pub const fn invoice_id(&self) -> InvoiceId {
        self.invoice_id
    }

    /// What is still reserved.
    #[must_use]
    pub const fn left(&self) -> Amount {
        self.left
    }

    /// The reservation after a move; `None` when nothing is left of it.
    ///
    /// # Errors
    ///
    /// `MOVE_ALREADY_DONE` when the part that the move is about is gone, `CURRENCY_MISMATCH`, or
    /// `AMOUNT_EXCEEDS_RESERVATION` when the move may not take this amount from what is left.
    pub fn after(&self, bid_id: BidId, kind: Move, amount: Amount) -> Result<Option<Self>, Refusal> {
        let gone = Err(Refusal::MoveAlreadyDone { bid_id, kind });
        match self.part {
            Part::Everything => match kind {
                Move::Release => self.take_all(kind, amount),
                // A winning bid is at least the asking price, and that is more than nothing: the excess is never
                // all of it.
                Move::Excess => self.take(kind, amount, Part::AskingPrice)?.map_or_else(
                    || {
                        Err(Refusal::AmountExceedsReservation {
                            kind,
                            reserved: self.left,
                            requested: amount,
                        })
                    },
                    |rest| Ok(Some(rest)),
                ),
                Move::Return | Move::Commit => self.take(kind, amount, Part::Excess),
            },
            Part::AskingPrice => match kind {
                Move::Return | Move::Commit => self.take_all(kind, amount),
                Move::Release | Move::Excess => gone,
            },
            Part::Excess => match kind {
                Move::Excess => self.take_all(kind, amount),
                Move::Release | Move::Return | Move::Commit => gone,
            },
        }
    }

    fn take_all(&self, kind: Move, amount: Amount) -> Result<Option<Self>, Refusal> {
        match self.take(kind, amount, self.part)? {
            None => Ok(None),
            Some(_) => {
                Err(Refusal::AmountExceedsReservation { kind, reserved: self.left, requested: amount })
            }
        }
    }

    fn take(&self, kind: Move, amount: Amount, then: Part) -> Result<Option<Self>, Refusal> {
        if amount.currency() != self.left.currency() {
            return Err(Refusal::CurrencyMismatch {
                expected: self.left.currency(),
                actual: amount.currency(),
            });
        }
        let rest = self.left.money().checked_sub(amount.money()).map_err(|_| {
            Refusal::AmountExceedsReservation { kind, reserved: self.left, requested: amount }
        })?;
        Ok(Amount::try_from(rest).ok().map(|left| Self { left, part: then, ..*self }))
    }
}

/// What is left of a reservation, as facts state it: nothing where it is closed.
pub(crate) fn remainder(rest: Option<&Reservation>, moved: Amount) -> Money {
    rest.map_or(Money::zero(moved.currency()), |rest| rest.left.money())
}
