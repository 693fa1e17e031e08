//! SIGTERM: what was accepted is answered, and nothing new is taken.

use std::sync::Arc;

use crate::service::{HEALTHY, Service, burst, error_code};
use crate::terminate::terminate_under_load;

#[tokio::test]
async fn what_was_accepted_is_answered_and_nothing_new_is_taken() {
    let mut service =
        Arc::new(Service::ready(&[("MODEL_THREADS", "1"), ("REQUEST_TIMEOUT_SECONDS", "300")]).await);
    let answers = burst(&service, 12);
    service.metric("predictions_accepted", "12").await;
    service.terminate();
    service.logged("draining").await;

    let health = service.get("/health").await;
    assert_eq!(health.headers()["retry-after"], "1");
    assert_eq!(health.headers()["connection"], "close");
    assert_eq!(error_code(health).await, (503, "MODEL_NOT_LOADED".into()));
    assert_eq!(service.get("/health/live").await.status(), 200);
    let refused = service.predict_sample().await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(error_code(refused).await, (503, "MODEL_NOT_LOADED".into()));

    for answer in answers.join_all().await {
        assert_eq!(answer.status(), 200);
    }
    let status = Arc::get_mut(&mut service).unwrap().exited().await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn with_a_delay_predictions_go_on_while_health_says_no() {
    let mut service = Service::ready(&[("DRAIN_DELAY_SECONDS", "3")]).await;
    assert_eq!(service.get("/health").await.text().await.unwrap(), HEALTHY);
    service.terminate();
    service.logged("draining").await;
    assert_eq!(service.get("/health").await.status(), 503);
    assert_eq!(service.predict_sample().await.status(), 200);
    assert_eq!(service.exited().await.code(), Some(0));
}

/// `scripts/bench-app drain` does this a hundred times.
#[tokio::test]
async fn a_signal_under_load_loses_nothing() {
    for _ in 0..3 {
        let round = terminate_under_load(4, 5).await;
        assert_eq!(round.lost, Vec::<String>::new());
        assert!(round.ok >= 5 && round.exit_code == Some(0), "{round:?}");
    }
}
