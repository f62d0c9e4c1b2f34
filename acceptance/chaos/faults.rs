//! Doing to the platform what the plan says.
//!
//! The rule this module protects: **what a fault did it undoes.** What was killed runs again, what was cut is mended, and whatever two
//! faults want to harm at the same time is harmed by one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use services::NatsServer;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::ground::Ground;
use crate::plan::{Crowd, Ending, Fault, Harm, Kind, Link, Process};
use crate::player::Player;
use crate::proxy::Proxy;
use crate::storm;

/// How often it is looked whether somebody has ended by itself.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How long a rolling restart waits for a process to be ready before it goes on to the next.
const ROLLING: Duration = Duration::from_secs(15);

/// Does all of it, in time; completes when the last fault is undone. Answers with how many of each kind there were.
pub(crate) async fn inflict(ground: &Arc<Ground>, plan: &[Fault]) -> BTreeMap<Kind, usize> {
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    let mut done = BTreeMap::new();
    let looking = async {
        let mut looks = interval(BETWEEN_LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            for player in ground.players() {
                // (Who is being harmed is looked at by whoever harms it.)
                if let Ok(mut player) = player.try_lock() {
                    player.look();
                }
            }
        }
    };
    let harming = async {
        for (number, fault) in plan.iter().copied().enumerate() {
            sleep_until(began + fault.at).await;
            *done.entry(fault.harm.kind()).or_default() += 1;
            under_way.spawn(one(Arc::clone(ground), number + 1, fault, began));
        }
        while let Some(ended) = under_way.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = harming => {}
    }
    done
}

async fn one(ground: Arc<Ground>, number: usize, fault: Fault, began: Instant) {
    let Fault { harm, lasts, .. } = fault;
    let tell = |what: &str| {
        let now = began.elapsed().as_millis();
        println!("+{:>3}.{:03} s  #{number:<4} {what}", now / 1000, now % 1000);
    };
    if lasts.is_zero() {
        tell(&format!("{harm}"));
    } else {
        tell(&format!("{harm} for {}.{:03} s", lasts.as_secs(), lasts.subsec_millis()));
    }
    match harm {
        Harm::Kill(process) => kill(&ground, process, lasts).await,
        Harm::Pause(process) => pause(&ground, process, lasts).await,
        Harm::Restart(process) => {
            if restart(&ground, process).await {
                tell(&format!("{process} did not end when it was asked to, and was killed"));
            }
        }
        Harm::Cut(link) => on_link(&ground, link, lasts, Ending::Reset, Proxy::cut).await,
        Harm::Delay(link, by) => on_link(&ground, link, lasts, Ending::Late, |proxy| proxy.delay(by)).await,
        Harm::HalfOpen(link, way, ending) => {
            on_link(&ground, link, lasts, ending, |proxy| proxy.half_open(way)).await;
        }
        Harm::BlackHole(link, ending) => {
            on_link(&ground, link, lasts, ending, Proxy::black_hole).await;
        }
        Harm::DiskFull(process) => {
            if let Some(afterwards) = fill(&ground, process, lasts).await {
                tell(&format!("{process} {afterwards}"));
            }
        }
        Harm::Storm(component, which, crowd, size) => {
            let address = ground.address(component, which).await;
            let came = storm::blow(&address, size, crowd == Crowd::Garbage, lasts).await;
            tell(&format!("{came} of {size} connections to {}-{which} were made", component.name()));
        }
        Harm::Rolling => rolling(&ground).await,
    }
}

async fn kill(ground: &Ground, process: Process, down: Duration) {
    match process {
        Process::Component(component, number) => {
            let mut player = ground.player(component, number).lock().await;
            player.kill().await;
            sleep(down).await;
            player.begin();
        }
        Process::Nats(number) => {
            let mut nats = ground.nats(number).lock().await;
            nats.kill();
            sleep(down).await;
            block_in_place(|| nats.start_again());
        }
        Process::Postgres => {
            let mut postgres = ground.postgres().lock().await;
            block_in_place(|| postgres.kill());
            sleep(down).await;
            block_in_place(|| postgres.start_again());
        }
    }
}

async fn pause(ground: &Ground, process: Process, lasts: Duration) {
    match process {
        Process::Component(component, number) => {
            let mut player = ground.player(component, number).lock().await;
            player.signal("-STOP").await;
            sleep(lasts).await;
            player.signal("-CONT").await;
        }
        Process::Nats(number) => {
            let nats = ground.nats(number).lock().await;
            nats.signal("STOP");
            sleep(lasts).await;
            nats.signal("CONT");
        }
        Process::Postgres => {
            let mut postgres = ground.postgres().lock().await;
            block_in_place(|| postgres.freeze());
            sleep(lasts).await;
            block_in_place(|| postgres.thaw());
        }
    }
}

/// Answers whether the process had to be killed. A nats-server may, and none of ours.
async fn restart(ground: &Ground, process: Process) -> bool {
    match process {
        Process::Component(component, number) => {
            let mut player = ground.player(component, number).lock().await;
            player.stop().await;
            player.begin();
            false
        }
        Process::Nats(number) => again(&mut *ground.nats(number).lock().await),
        Process::Postgres => {
            let mut postgres = ground.postgres().lock().await;
            block_in_place(|| {
                postgres.stop();
                postgres.start_again();
            });
            false
        }
    }
}

/// Ends the server and starts it again. Answers whether it had to be killed.
fn again(nats: &mut NatsServer) -> bool {
    block_in_place(|| {
        let hung = nats.end();
        nats.start_again();
        hung
    })
}

async fn on_link(ground: &Ground, link: Link, lasts: Duration, ending: Ending, harm: impl FnOnce(&Proxy)) {
    let proxy = ground.link(link);
    let _turn = proxy.turn().await;
    harm(proxy);
    sleep(lasts).await;
    proxy.mend(ending);
}

/// Answers with what had to be done before the server could be used again.
async fn fill(ground: &Ground, process: Process, lasts: Duration) -> Option<&'static str> {
    match process {
        Process::Nats(number) => {
            let mut nats = ground.nats(number).lock().await;
            let before = disabled(&nats);
            nats.volume().expect("its disk is its own").fill();
            sleep(lasts).await;
            nats.volume().expect("its disk is its own").free();
            if block_in_place(|| nats.revive()) {
                return Some("had ended, and was started again");
            }
            if disabled(&nats) > before {
                // What it could not write once it does not try to write again before it is started again.
                return Some(if again(&mut nats) {
                    "had stopped storing, did not end when it was asked to, was killed and started again"
                } else {
                    "had stopped storing, and was started again"
                });
            }
            None
        }
        Process::Postgres => {
            let mut postgres = ground.postgres().lock().await;
            postgres.volume().expect("its disk is its own").fill();
            sleep(lasts).await;
            postgres.volume().expect("its disk is its own").free();
            block_in_place(|| postgres.revive()).then_some("had ended, and was started again")
        }
        Process::Component(..) => panic!("a component stores nothing"),
    }
}

/// How often a nats-server has said that it could not store.
fn disabled(nats: &NatsServer) -> usize {
    nats.log().lines().filter(|line| line.contains("no space left on device")).count()
}

async fn rolling(ground: &Ground) {
    for player in ground.players() {
        let mut player = player.lock().await;
        Player::stop(&mut player).await;
        player.begin();
        player.ready_within(ROLLING).await;
    }
}
