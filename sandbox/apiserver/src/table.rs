//! Tables as `kubectl get` prints them: columns and cells are worked out by the server.
//! Source of the columns: `pkg/printers/internalversion/printers.go` of Kubernetes 1.34.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::request::Rows;
use crate::views;

/// Rows for objects.
pub(crate) fn of<'a>(kind: &Kind, rows: Rows, objects: impl Iterator<Item = &'a Value>) -> Value {
    let definitions: Vec<Value> = kind
        .does
        .columns
        .names
        .iter()
        .map(|(name, wide)| {
            let number = kind.does.integer_columns.contains(name);
            json!({
                "name": name, "type": if number { "integer" } else { "string" },
                "format": if *name == "Name" { "name" } else { "" }, "description": "",
                "priority": i32::from(*wide),
            })
        })
        .collect();
    let rows: Vec<Value> = objects.map(|object| row(kind, rows, object)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": definitions, "rows": rows})
}

/// The row of one object.
pub(crate) fn row(kind: &Kind, rows: Rows, object: &Value) -> Value {
    let shown = match rows {
        Rows::Nothing => Value::Null,
        Rows::Metadata => views::metadata_only(object),
        Rows::Object => views::show(kind, object),
    };
    let mut row = json!({"cells": (kind.does.columns.cells)(object), "object": shown});
    if let Some(condition) = (kind.does.row_condition)(object) {
        row["conditions"] = json!([condition]);
    }
    row
}
