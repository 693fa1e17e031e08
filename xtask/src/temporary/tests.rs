//! Changes of a Deployment on an API server without controllers.

use kube::api::PostParams;
use sandbox_apiserver::ApiServer;

use super::*;
use crate::failure::exit_of;
use crate::gates::tests::cx;

/// A Deployment of three replicas and its autoscaler, on an API server without controllers.
async fn cluster() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = ApiServer::new("token".into()).client();
    let pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{
        "name": "web", "image": "web", "startupProbe": {"httpGet": {"path": "/", "port": 80}},
    }]}});
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": pod},
    });
    let autoscaler = json!({
        "metadata": {"name": "web"},
        "spec": {"maxReplicas": 10, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment",
        "name": "web"}},
    });
    let read = |value| serde_json::from_value(value).expect("an object");
    let api: Api<Deployment> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &read(deployment)).await.expect("creating the Deployment");
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), "default");
    let autoscaler = serde_json::from_value(autoscaler).expect("an object");
    api.create(&PostParams::default(), &autoscaler).await.expect("creating the autoscaler");
    client
}

fn app(client: &Client) -> App<'_> {
    App { client, namespace: "default", deployment: "web" }
}

/// Everything that may be changed, as it is.
async fn state(app: &App<'_>) -> (Value, i32, Option<i32>, i32) {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(app.client.clone(), "default");
    let bounds = api.get("web").await.expect("the autoscaler").spec.expect("its spec");
    let pod = app.pod().await.expect("a pod");
    (pod, app.replicas().await.expect("replicas"), bounds.min_replicas, bounds.max_replicas)
}

async fn change(changes: &mut Changes<'_>) -> Result<()> {
    let app = changes.app;
    let (pod, replicas, min, max) = state(&app).await;
    let containers = pod["containers"].clone();
    let grace = pod["terminationGracePeriodSeconds"].clone();
    changes.begin("without startup-probe", vec![Undo::Pod { containers, grace }]).await?;
    app.remake(&json!([{"name": "web", "image": "web"}]), &1.into()).await?;
    let bounds = Undo::Autoscaler { name: "web".into(), min, max };
    changes.begin("scaled up", vec![bounds, Undo::Replicas(replicas)]).await?;
    app.bound("web", Some(7), 7).await?;
    app.scale(7).await?;
    let mark = app.mark().await?.expect("a mark");
    assert!(
        app.sentence(&mark)
            .starts_with("deployment/web is temporarily changed: without startup-probe, scaled up, since 2")
    );
    Ok(())
}

#[tokio::test]
async fn what_is_changed_is_put_back_however_the_work_ends() {
    let (client, cx) = (cluster().await, cx());
    let app = app(&client);
    let before = state(&app).await;
    lasting(&cx, app, async |changes| change(changes).await).await.expect("it goes well");
    assert_eq!((state(&app).await, app.mark().await.expect("a look")), (before.clone(), None));

    let failed = lasting(&cx, app, async |changes| {
        change(changes).await?;
        Err::<(), _>(anyhow!("the cause"))
    });
    assert_eq!(failed.await.unwrap_err().to_string(), "the cause");
    assert_eq!((state(&app).await, app.mark().await.expect("a look")), (before.clone(), None));

    let panics = lasting(&cx, app, async |changes| {
        change(changes).await?;
        if state(&app).await.1 == 7 {
            std::panic::panic_any("in the middle");
        }
        Ok(())
    });
    let panic = AssertUnwindSafe(panics).catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"in the middle"));
    assert_eq!((state(&app).await, app.mark().await.expect("a look")), (before, None));
}

#[tokio::test]
async fn a_mark_that_stayed_refuses_another_change_until_it_is_put_back() {
    let (client, cx) = (cluster().await, cx());
    let app = app(&client);
    let before = state(&app).await;
    let mut killed = Changes { app, run: "20260102-030405-load-1".into(), mark: None };
    change(&mut killed).await.expect("a change");
    drop(killed);

    let refused = lasting(&cx, app, async |changes| change(changes).await).await.unwrap_err();
    assert_eq!(exit_of(&refused), Exit::Preflight);
    assert!(refused.to_string().ends_with(", by run 20260102-030405-load-1"), "{refused}");
    assert_eq!(warn(&cx, app).await["temporary_change"]["run"], "20260102-030405-load-1");

    let left = app.put_back_leftovers().await.expect("putting back").expect("a mark");
    assert_eq!(left.what, "without startup-probe, scaled up");
    assert_eq!((state(&app).await, app.put_back_leftovers().await.expect("a look")), (before, None));
    assert_eq!(warn(&cx, app).await, Summary::new());
}

/// As when `up` or `down` is run while the load is under way.
#[tokio::test]
async fn what_another_command_has_put_back_or_removed_is_left_to_it() {
    let (client, cx) = (cluster().await, cx());
    let app = app(&client);
    let work = async |changes: &mut Changes<'_>| {
        change(changes).await?;
        app.put_back_leftovers().await?;
        app.scale(5).await
    };
    lasting(&cx, app, work).await.expect("it goes well");
    assert_eq!(app.replicas().await.expect("replicas"), 5);

    let work = async |changes: &mut Changes<'_>| {
        change(changes).await?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
        deployments.delete("web", &kube::api::DeleteParams::default()).await?;
        Ok(())
    };
    lasting(&cx, app, work).await.expect("nothing is left to put back");
}

#[tokio::test]
async fn a_mark_that_was_edited_by_hand_is_shown_as_it_is_and_removed() {
    let client = cluster().await;
    let app = app(&client);
    let edited = json!({"metadata": {"annotations": {ANNOTATION: "broken"}}});
    app.deployments().patch("web", &params(), &Patch::Merge(edited)).await.expect("marking");
    let mark = app.put_back_leftovers().await.expect("putting back").expect("a mark");
    assert_eq!(app.sentence(&mark), "deployment/web is temporarily changed: broken");
    assert_eq!(app.mark().await.expect("a look"), None);
}
