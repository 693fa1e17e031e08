//! Objects in the form the client asked for.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::request::{Rows, View};
use crate::store::Object;
use crate::{table, views};

/// One object.
pub(crate) fn one(kind: &Kind, object: &Value, view: View) -> Value {
    match view {
        View::Object => views::show(kind, object),
        View::Metadata | View::MetadataList => views::metadata_only(object),
        View::Table(rows) => {
            let mut table = table::of(kind, rows, [object].into_iter());
            table["metadata"] = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table
        }
    }
}

/// A list as a table.
pub(crate) fn table(kind: &Kind, rows: Rows, objects: &[Object], metadata: Value) -> Value {
    let mut table = table::of(kind, rows, objects.iter().map(|object| &**object));
    table["metadata"] = metadata;
    table
}

/// What a bookmark is in a watch of tables.
pub(crate) fn empty_table(kind: &Kind, version: u64) -> Value {
    let mut table = table::of(kind, Rows::Nothing, std::iter::empty());
    table["metadata"] = json!({"resourceVersion": version.to_string()});
    table
}
