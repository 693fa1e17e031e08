//! The fuzzer's checks on a bounded number of inputs; `scripts/fuzz-sandbox` goes on for as long as you like, and
//! `PROPTEST_CASES` sets another number.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "../../../fuzz/checks/api.rs"]
mod api;

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_patch_does_no_harm_and_a_merge_made_twice_is_one_made_once(input in vec(any::<u8>(), 0..1500)) {
        api::patch(&input);
    }

    #[test]
    fn what_is_applied_twice_is_applied_once(input in vec(any::<u8>(), 0..3000)) {
        api::apply(&input);
    }

    #[test]
    fn yaml_does_no_harm(
        input in "(kind: ConfigMap\n)?(data:|metadata:|[a-c]: |- |\\? |[{}\\[\\],:&*!|>'\"#%@ \n\t~é]|&a \
                  |\\*a|<<: |0o7|[0-9.]{1,3}|yes|~){0,60}",
    ) {
        api::yaml(input.as_bytes());
    }

    #[test]
    fn json_is_yaml(data in "[\\PC\n\t\u{a0}\u{feff}\u{2028}]{0,30}", name in "[a-z]{1,8}") {
        let object = serde_json::json!({"metadata": {"name": name}, "data": {"a": data, "b": "no",
            "c": "1_0:30"}});
        api::yaml(object.to_string().as_bytes());
    }

    #[test]
    fn a_selector_is_refused_or_selects(
        input in "(a|d|b|[a-z./-]{1,8}|!|==?|!=|in|notin|[()<>, ]|-?[0-9]{1,3}){0,12}",
    ) {
        api::selector(input.as_bytes());
    }

    #[test]
    fn a_set_and_its_opposite_select_everything(key in "[ad]", values in vec("[b-d]|-?[0-9]|", 1..4)) {
        api::selector(format!("{key} in ({})", values.join(",")).as_bytes());
    }
}

/// What was worth keeping of earlier runs.
#[test]
fn the_corpus_holds() {
    type Check = fn(&[u8]);
    let checks: [(&str, Check); 4] =
        [("patch", api::patch), ("apply", api::apply), ("yaml", api::yaml), ("selector", api::selector)];
    for (name, check) in checks {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/").to_owned() + name;
        for entry in std::fs::read_dir(&folder).expect(&folder) {
            check(&std::fs::read(entry.expect("listing").path()).expect("reading"));
        }
    }
}
