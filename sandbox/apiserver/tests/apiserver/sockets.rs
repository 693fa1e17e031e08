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

#[tokio::test]
async fn who_has_no_token_holds_back_nobody_who_has_one() -> Result {
    let _ = sandbox_connections::raise_descriptor_limit();
    let server = Server::start().await?;
    let kubeconfig = std::fs::read_to_string(&server.kubeconfig)?;
    let address = kubeconfig.split("https://").nth(1).and_then(|rest| rest.split('\'').next());
    let address = address.ok_or("no address")?;
    let mut strangers = Vec::new();
    let known = server.client().await?;
    let pods: Api<Pod> = Api::default_namespaced(known.clone());
    let mut watch = pods.watch(&WatchParams::default(), "0").await?.boxed();
    for _ in 0..700 {
        let mut stranger = tokio::net::TcpStream::connect(address).await?;
        stranger.write_all(&[22, 3, 1]).await?;
        strangers.push(stranger);
    }
    tokio::time::timeout(DEADLINE, server.client().await?.apiserver_version()).await??;
    // The first ones had to go; who is known stays.
    let mut byte = [0];
    assert_eq!(tokio::time::timeout(DEADLINE, strangers[0].read(&mut byte)).await?.unwrap_or(0), 0);
    running_pod(&known).await?;
    assert!(matches!(tokio::time::timeout(DEADLINE, watch.try_next()).await??, Some(WatchEvent::Added(_))));
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_too_large_is_told_so() -> Result {
    let server = Server::start().await?;
    let body = "x".repeat(8 * 1024 * 1024);
    let request = http::Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json")
        .body(kube::client::Body::from(body.into_bytes()))?;
    let response = server.client().await?.send(request).await?;
    assert_eq!(response.status().as_u16(), 413);
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body)?;
    assert_eq!(status["reason"], "RequestEntityTooLarge");
    assert_eq!(status["message"], "Request entity too large: limit is 3145728");
    Ok(())
}

#[tokio::test]
async fn log_options_are_refused_as_kubernetes_words_it() -> Result {
    let server = Server::start().await?;
    let client = server.client().await?;
    running_pod(&client).await?;
    for (query, why) in [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
    ] {
        let request = http::Request::get(format!("/api/v1/namespaces/default/pods/web-1/log?{query}"));
        let error = client.request_text(request.body(Vec::new())?).await.expect_err("422");
        let kube::Error::Api(status) = error else { panic!("{error}") };
        assert_eq!(
            (status.code, status.message.as_str()),
            (422, format!("PodLogOptions \"web-1\" is invalid: {why}").as_str())
        );
    }
    for query in [
        "tailLines=9223372036854775807",
        "sinceSeconds=9223372036854775807",
        "limitBytes=9223372036854775807",
    ] {
        let request = http::Request::get(format!("/api/v1/namespaces/default/pods/web-1/log?{query}"));
        client.request_text(request.body(Vec::new())?).await?;
    }
    let request = http::Request::get("/api/v1/namespaces/default/pods/web-1/log?sinceTime=yesterday");
    let error = client.request_text(request.body(Vec::new())?).await.expect_err("400");
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert!(status.code == 400 && status.message.contains("\"yesterday\""), "{}", status.message);
    Ok(())
}
