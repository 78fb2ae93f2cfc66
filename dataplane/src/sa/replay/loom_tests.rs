//! The window under every order of two workers' steps.

use loom::sync::Arc;
use loom::thread;

use super::*;

fn state() -> Arc<ReplayState> {
    Arc::new(ReplayState::new(Some(ReplayWindow::new(64).unwrap()), true))
}

#[test]
fn loom_fault_43_one_of_two_workers_accepts_a_number() {
    loom::model(|| {
        let window = state();
        let other = Arc::clone(&window);
        let worker = thread::spawn(move || other.commit(7).is_ok());
        let here = window.commit(7).is_ok();
        assert!(here != worker.join().unwrap(), "exactly one");
    });
}

#[test]
fn loom_a_new_lap_forgets_nothing_of_the_window() {
    loom::model(|| {
        let window = state();
        window.commit(10).unwrap();
        let other = Arc::clone(&window);
        // 154 shares its word with 10: one worker clears what another looks at.
        let worker = thread::spawn(move || (other.commit(154).is_ok(), other.commit(150).is_ok()));
        assert!(window.commit(10).is_err(), "accepted before");
        let late = window.commit(150).is_ok();
        let (jumped, other_late) = worker.join().unwrap();
        assert!(jumped);
        assert!(late != other_late, "150 is accepted exactly once");
        assert!(window.commit(154).is_err());
    });
}

#[test]
fn loom_two_jumps_race_and_keep_each_others_bit() {
    loom::model(|| {
        let window = state();
        let other = Arc::clone(&window);
        let worker = thread::spawn(move || other.commit(300).is_ok());
        let here = window.commit(310).is_ok();
        assert!(here && worker.join().unwrap(), "both lie in the window of 310");
        assert_eq!(window.commit(300), Err(Refusal::Replayed));
        assert_eq!(window.commit(310), Err(Refusal::Replayed));
    });
}
