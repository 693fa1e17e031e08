//! `--during scale-down`: scaled to what the nodes hold, and put back.

use crate::interrupt::stop_at;
use crate::world::World;

/// Replicas, the autoscaler's bounds, and what the Deployment is marked with.
fn scale(world: &World) -> [String; 3] {
    let get =
        |what: &str, path: &str| world.kubectl(&["get", what, "-o", &format!("jsonpath={path}")]).stdout;
    [
        get("deployment/simple-model-api-deployment", "{.spec.replicas}"),
        get("hpa/simple-model-api-hpa", "{.spec.minReplicas} {.spec.maxReplicas}"),
        get("deployment/simple-model-api-deployment", r"{.metadata.annotations.xtask/temporary-change}"),
    ]
}

#[test]
fn a_scale_down_begins_at_what_the_node_holds_and_everything_is_put_back() {
    let mut world = World::sandbox();
    // Four of them and a half fit this machine.
    let millis = std::thread::available_parallelism().expect("cores").get() * 1000 * 2 / 9;
    let deployment = world.own_workspace().join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&deployment).expect("reading the manifest");
    let text = text.replace("cpu: 90m", &format!("cpu: {millis}m")).replace("seconds: 5", "seconds: 1");
    std::fs::write(&deployment, text).expect("writing it");
    world.run_ok(&["up"]);
    let before = scale(&world);
    assert_eq!(before, ["3", "3 10", ""]);

    let load = ["load", "--output", "json", "--get", "/health", "--rate", "20", "--duration", "10"];
    let ran = world.run(&[&load[..], &["--during", "scale-down"]].concat());
    // On a machine that is busy otherwise the generator may say that it was late.
    assert!([0, 41].contains(&ran.code), "{}\n{}", ran.stdout, ran.stderr);
    let scaled =
        ran.events().into_iter().find(|event| event["name"] == "scale-up" && event["state"] == "done");
    let scaled = scaled.expect("a step")["detail"].as_str().expect("how").to_owned();
    let room =
        "from 3 to 4 replicas; room for 4 of the 10 replicas that the autoscaler allows: node sandbox has ";
    assert!(scaled.starts_with(room), "{scaled}");
    assert_eq!(ran.summary()["marks"][0]["what"], "scale-down from 4 to 3");
    assert_eq!(scale(&world), before);

    for at in ["scale-up", "load"] {
        let stopped = stop_at(&world, &["load", "--during", "scale-down"], at, "-INT");
        assert_eq!(stopped.unwrap_or_else(|| panic!("{at} never started")).code, Some(130), "{at}");
        assert_eq!(scale(&world), before, "put back when stopped during {at}");
    }

    // Where no more than the fewest fit, that is said before anything is changed.
    world.kubectl(&["patch", "hpa", "simple-model-api-hpa", "-p", r#"{"spec":{"minReplicas":4}}"#]);
    let ran = world.run(&["load", "--during", "scale-down"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("there is nothing to scale down: room for 4 of the 10"), "{}", ran.stderr);
    assert_eq!(scale(&world)[1..], ["4 10", ""]);
}
