//! The API over real sockets, without kubectl.

use std::time::Duration;

use crate::support::{Result, Server, running_pod};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, LogParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn only_the_token_opens() -> Result {
    let server = Server::start().await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(&server.kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.auth_info.token = Some("another-token".to_owned().into());
    let pods: Api<Pod> = Api::default_namespaced(kube::Client::try_from(config)?);
    let error = pods.list(&ListParams::default()).await.expect_err("401");
    assert!(
        matches!(error, kube::Error::Api(ref status) if status.code == 401 && status.reason == "Unauthorized")
    );
    assert!(
        Api::<Pod>::default_namespaced(server.client().await?)
            .list(&ListParams::default())
            .await?
            .items
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn an_event_reaches_a_watcher_within_milliseconds() -> Result {
    let server = Server::start().await?;
    let (near, far) = (server.api.client(), server.client().await?);
    let maps: Api<ConfigMap> = Api::default_namespaced(far);
    let mut events = maps.watch(&WatchParams::default(), "1").await?.boxed();
    let writer: Api<ConfigMap> = Api::default_namespaced(near);
    let mut took = Vec::new();
    for index in 0..50 {
        let map = serde_json::from_value(json!({"metadata": {"name": format!("m{index}")}}))?;
        let start = std::time::Instant::now();
        writer.create(&Default::default(), &map).await?;
        let event = tokio::time::timeout(DEADLINE, events.try_next()).await??;
        took.push(start.elapsed());
        assert!(matches!(event, Some(WatchEvent::Added(_))));
    }
    took.sort();
    assert!(took[25] < Duration::from_millis(10), "half of the events took longer than {:?}", took[25]);
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_server_ends_its_watches() -> Result {
    let mut server = Server::start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await?);
    let mut events = maps.watch(&WatchParams::default(), "1").await?.boxed();
    server.shutdown.cancel();
    let serving = server.serving.take().ok_or("not serving")?;
    tokio::time::timeout(Duration::from_secs(1), serving).await???;
    assert!(!matches!(tokio::time::timeout(DEADLINE, events.try_next()).await?, Ok(Some(_))));
    Ok(())
}

#[tokio::test]
async fn logs_stream_and_ports_forward() -> Result {
    let server = Server::start().await?;
    let client = server.client().await?;
    running_pod(&client).await?;
    let pods: Api<Pod> = Api::default_namespaced(client);
    assert_eq!(pods.logs("web-1", &LogParams::default()).await?, "first\nsecond\nthird\n");

    let mut forward = pods.portforward("web-1", &[8000]).await?;
    let mut stream = forward.take_stream(8000).ok_or("no stream")?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    let mut text = vec![0; 1024];
    let count = tokio::time::timeout(DEADLINE, stream.read(&mut text)).await??;
    assert!(String::from_utf8_lossy(&text[..count]).ends_with("hello"));

    let mut forward = pods.portforward("web-1", &[9]).await?;
    let error = forward.take_error(9).ok_or("no error channel")?;
    let why = tokio::time::timeout(DEADLINE, error).await?.ok_or("no error")?;
    assert!(why.contains("error forwarding port 9 to pod default/web-1"), "{why}");
    Ok(())
}
