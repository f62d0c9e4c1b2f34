//! Questions that are put to a store together.
//!
//! The rule this module protects: however many want to know the same kind of thing, the store is asked once at a time. Who comes
//! while a question is under way goes along with the next one; so nobody gets an answer that is older than his question, and
//! what thousands ask whenever there is news is a few questions and not thousands. A question belongs to all for whom it is asked: who
//! began it may go away, and another sees it through.
//!
//! The price: where one question is slow, or fails, it does so for all of them, and those who come meanwhile wait for it too. Alone,
//! each would have had a connection of his own.

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::views::QueryError;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tokio::sync::oneshot;

/// What is asked with a key, and answered with a value.
pub(crate) struct Together<K, V> {
    /// How many go along with one question at most.
    most: usize,
    /// Those who wait for the next one, in the order in which they came.
    waiting: Mutex<Vec<Waiting<K, V>>>,
    /// The one that is under way. Whoever holds it sees it through.
    asking: tokio::sync::Mutex<Option<Question<V>>>,
}

struct Waiting<K, V> {
    key: K,
    asker: Asker<V>,
}

type Asker<V> = oneshot::Sender<Result<V, QueryError>>;

struct Question<V> {
    answers: BoxFuture<'static, Result<Vec<V>, QueryError>>,
    askers: Vec<Asker<V>>,
    /// How many waited for the next one when it was asked.
    behind: usize,
}

impl<V> Question<V> {
    /// Whether all have gone away for whom it was asked.
    fn is_nobodys(&self) -> bool {
        self.askers.iter().all(Asker::is_closed)
    }
}

impl<K, V> fmt::Debug for Together<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").field("waiting", &self.waiting().len()).finish_non_exhaustive()
    }
}

impl<K, V> Together<K, V> {
    /// Questions that so many go along with at most.
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, waiting: Mutex::new(Vec::new()), asking: tokio::sync::Mutex::const_new(None) }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting<K, V>>> {
        // A panic while holding the lock leaves a plain collection behind, which is never half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store answers with for this key: asked, for this one and others, by whoever comes first. The store has to
    /// have an answer for each key, in their order. (`store` makes the question, and no more: all it does is done as that is polled.)
    pub(crate) async fn ask<F>(&self, key: K, store: impl Fn(Vec<K>) -> F) -> Result<V, QueryError>
    where
        F: Future<Output = Result<Vec<V>, QueryError>> + Send + 'static,
    {
        let (asker, answered) = oneshot::channel();
        self.waiting().push(Waiting { key, asker });
        // Outlives what is locked below.
        let mut presence = Presence { together: self, answered };
        loop {
            let asking = pin!(self.asking.lock());
            let mut asking = match select(&mut presence.answered, asking).await {
                Either::Left((answer, _)) => return answer.unwrap_or_else(|_| Err(unanswered())),
                Either::Right((asking, _)) => asking,
            };
            if let Ok(answer) = presence.answered.try_recv() {
                return answer;
            }
            if asking.as_ref().is_none_or(Question::is_nobodys) {
                *asking = self.next(&store);
            }
            if let Some(question) = asking.as_mut() {
                let answers = question.answers.as_mut().await;
                if let Some(question) = asking.take() {
                    self.tell(question, answers);
                }
            }
        }
    }

    /// The next question: for those who wait, but not for whoever has gone away. `None`: nobody waits.
    fn next<F>(&self, store: impl Fn(Vec<K>) -> F) -> Option<Question<V>>
    where
        F: Future<Output = Result<Vec<V>, QueryError>> + Send + 'static,
    {
        let (now, behind) = {
            let mut waiting = self.waiting();
            waiting.retain(|one| !one.asker.is_closed());
            let many = waiting.len().min(self.most);
            let later = waiting.split_off(many);
            let behind = later.len();
            (mem::replace(&mut *waiting, later), behind)
        };
        if now.is_empty() {
            return None;
        }
        let (keys, askers) = now.into_iter().map(|Waiting { key, asker }| (key, asker)).unzip();
        // A panic is not for him alone who happens to see it through.
        let answers = AssertUnwindSafe(store(keys)).catch_unwind();
        let answers = answers.map(|answers| answers.unwrap_or_else(|_panic| Err(unanswered()))).boxed();
        Some(Question { answers, askers, behind })
    }

    fn tell(&self, question: Question<V>, answers: Result<Vec<V>, QueryError>) {
        let Question { mut askers, behind, .. } = question;
        match answers {
            Ok(values) => {
                for (asker, value) in askers.into_iter().zip(values) {
                    // Who has gone away meanwhile needs no answer.
                    let _gone = asker.send(Ok(value));
                }
            }
            Err(error) => {
                // A store that cannot be reached need not be asked by one after the other: this is news for all who had come by then.
                if matches!(error, QueryError::Unavailable(_)) {
                    askers.extend(self.waiting().drain(..behind).map(|one| one.asker));
                }
                for asker in askers {
                    let _gone = asker.send(Err(error.clone()));
                }
            }
        }
    }
}

fn unanswered() -> QueryError {
    QueryError::Corrupt("the store has left a question unanswered".to_owned())
}

/// Somebody who asks, until he goes away. With the last one for whom it was asked a question goes, too, and whatever it has of the store:
/// nobody would see it through.
struct Presence<'a, K, V> {
    together: &'a Together<K, V>,
    answered: oneshot::Receiver<Result<V, QueryError>>,
}

impl<K, V> Drop for Presence<'_, K, V> {
    fn drop(&mut self) {
        let question = {
            // They go one after the other: of two at the same time each would think that the other one is still there.
            let _waiting = self.together.waiting();
            self.answered.close();
            // Where somebody holds it, or is about to, he sees it through, or goes himself.
            let asking = self.together.asking.try_lock().ok();
            asking.and_then(|mut question| question.take_if(|question| question.is_nobodys()))
        };
        drop(question);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use eventsourcing::environment::Environment as _;
    use eventsourcing::testkit::world::{Dice, Task, World, WorldEnvironment};

    use super::*;

    /// A store that writes down what it was asked, and answers, some time later, with how many questions there were by then.
    struct Store {
        asked: Mutex<Vec<Vec<u32>>>,
        environment: WorldEnvironment,
    }

    /// Who asks for these gets no answer: the store cannot be reached, what it has cannot be read, it breaks.
    const LOST: u32 = 1001;
    const BLURRED: u32 = 1002;
    const BROKEN: u32 = 1003;

    /// How long the store takes.
    const TAKES: Duration = Duration::from_millis(5);

    impl Store {
        fn new(world: &World) -> Arc<Self> {
            Arc::new(Self { asked: Mutex::default(), environment: world.environment() })
        }

        fn asked(&self) -> MutexGuard<'_, Vec<Vec<u32>>> {
            self.asked.lock().expect("nobody has panicked")
        }

        async fn answer(self: Arc<Self>, keys: Vec<u32>) -> Result<Vec<(u32, usize)>, QueryError> {
            let questions = {
                let mut asked = self.asked();
                asked.push(keys.clone());
                asked.len()
            };
            self.environment.sleep(TAKES).await;
            assert!(!keys.contains(&BROKEN), "broken");
            if keys.contains(&LOST) {
                return Err(QueryError::Unavailable("lost".to_owned()));
            }
            if keys.contains(&BLURRED) {
                return Err(QueryError::Corrupt("blurred".to_owned()));
            }
            Ok(keys.into_iter().map(|key| (key, questions)).collect())
        }

        /// Asks for this key, together with others.
        async fn ask(self: Arc<Self>, together: &Asked, key: u32) -> Told {
            together.ask(key, |keys| Arc::clone(&self).answer(keys)).await
        }
    }

    type Asked = Together<u32, (u32, usize)>;
    type Told = Result<(u32, usize), QueryError>;

    /// Lets each who asks take one step; answers with what those were told who are done.
    fn step<F: Future>(asked: &mut Vec<Pin<Box<F>>>) -> Vec<F::Output> {
        let mut answers = Vec::new();
        asked.retain_mut(|one| match one.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            Poll::Pending => true,
        });
        answers
    }

    /// Somebody who asks after some time, and goes away some time later, or never.
    fn asker(
        world: &World,
        (together, store): (&Rc<Asked>, &Arc<Store>),
        key: u32,
        comes: Duration,
        goes: Option<Duration>,
    ) -> Task<(u32, usize, Option<Told>)> {
        let (together, store, environment) = (Rc::clone(together), Arc::clone(store), world.environment());
        world.spawn("asker", async move {
            environment.sleep(comes).await;
            let before = store.asked().len();
            let ask = pin!(store.ask(&together, key));
            let Some(goes) = goes else { return (key, before, Some(ask.await)) };
            match select(ask, pin!(environment.sleep(goes))).await {
                Either::Left((answer, _)) => (key, before, Some(answer)),
                Either::Right(_) => (key, before, None),
            }
        })
    }

    #[test]
    fn whoever_goes_away_the_others_get_an_answer_that_is_younger_than_their_question() {
        let (mut answers, mut questions) = (0, 0);
        for seed in 0..300 {
            let (world, mut dice) = (World::new(seed), Dice::new(seed));
            let (together, store) = (Rc::new(Together::new(4)), Store::new(&world));
            let mut tasks = Vec::new();
            for key in 0..30 {
                let comes = Duration::from_micros(dice.roll() % 30_000);
                let goes = (key % 3 > 0).then(|| Duration::from_micros(dice.roll() % 60_000));
                tasks.push(asker(&world, (&together, &store), key, comes, goes));
            }
            let all = || tasks.iter().all(Task::is_finished);
            world.run_until(all, 100_000).expect("whoever stays is told");
            for (key, before, told) in tasks.iter().filter_map(Task::take) {
                let Some(told) = told else { continue };
                let (of, question) = told.expect("an answer");
                assert!(of == key && question > before, "{seed}: {of} for {key}, {question} after {before}");
                answers += 1;
            }
            questions += store.asked().len();
        }
        assert!(questions < answers, "{questions} questions, {answers} answers");
    }

    #[test]
    fn a_question_that_nobody_would_wait_for_to_its_end_is_seen_through_by_one_after_the_other() {
        let world = World::new(7);
        let (together, store) = (Rc::new(Together::new(8)), Store::new(&world));
        // Each stays for less than the store takes, but for the last one; there is always somebody.
        let stays = TAKES / 2;
        let mut tasks: Vec<_> = (0..20)
            .map(|key| asker(&world, (&together, &store), key, key * TAKES / 4, Some(stays)))
            .collect();
        tasks.push(asker(&world, (&together, &store), 20, TAKES / 8, Some(TAKES * 3)));
        world.run_until(|| tasks.iter().all(Task::is_finished), 10_000).expect("all go");
        let told: Vec<_> = tasks.iter().filter_map(Task::take).filter_map(|(.., told)| told).collect();
        assert_eq!(told.last(), Some(&Ok((20, 2))), "{told:?}");
    }

    #[test]
    fn what_is_asked_meanwhile_goes_along_with_the_next_question() {
        let world = World::new(1);
        let (together, store) = (Together::new(3), Store::new(&world));
        let ask = |key| Box::pin(Arc::clone(&store).ask(&together, key));
        let mut asked: Vec<_> = [20, 20, 21, 22, 23, 24].map(ask).into();
        assert_eq!(step(&mut asked), []);
        assert_eq!(*store.asked(), [[20]], "nobody else had come when it was asked");
        assert!(world.pass(None));
        assert_eq!(step(&mut asked), [Ok((20, 1))]);
        assert_eq!(store.asked()[1..], [[20, 21, 22]], "nobody is told what was asked before he came");
        // Two go away: the one who asked for all, and another. A third sees it through.
        drop(asked.remove(0));
        drop(asked.remove(0));
        assert_eq!(step(&mut asked), []);
        assert!(world.pass(None));
        assert_eq!(step(&mut asked), [Ok((22, 2))]);
        assert_eq!(store.asked()[2..], [[23, 24]]);
        // A question that is nobody's any more is not seen through.
        asked.clear();
        assert_eq!(Arc::strong_count(&store), 1, "it is gone");
        asked.push(ask(25));
        assert_eq!(step(&mut asked), []);
        assert_eq!(store.asked()[3..], [[25]]);
    }

    #[test]
    fn that_a_store_cannot_be_reached_is_news_for_all_who_had_come_when_it_was_asked() {
        for (unlucky, error) in [
            (LOST, QueryError::Unavailable("lost".to_owned())),
            (BLURRED, QueryError::Corrupt("blurred".to_owned())),
            (BROKEN, unanswered()),
        ] {
            let world = World::new(1);
            let (together, store) = (Together::new(2), Store::new(&world));
            let ask = |key| Box::pin(Arc::clone(&store).ask(&together, key));
            let mut asked: Vec<_> = [1, 2, unlucky, 3, 4].map(ask).into();
            assert_eq!(step(&mut asked), []);
            assert!(world.pass(None));
            assert_eq!(step(&mut asked), [Ok((1, 1))]);
            asked.push(ask(5));
            assert_eq!(step(&mut asked), []);
            assert!(world.pass(None));
            let told = step(&mut asked);
            // Of what cannot be read nothing follows for others.
            assert_eq!(told, vec![Err(error); if unlucky == LOST { 4 } else { 2 }]);
            assert_eq!(step(&mut asked), []);
            assert!(world.pass(None));
            assert!(step(&mut asked).iter().all(Result::is_ok));
        }
    }

    #[test]
    fn a_question_that_is_left_unanswered_is_an_error() {
        let together: Together<u32, u32> = Together::new(2);
        let mut asked = vec![Box::pin(together.ask(1, |_| async { Ok(Vec::new()) }))];
        assert_eq!(step(&mut asked), [Err(unanswered())]);
    }
}
