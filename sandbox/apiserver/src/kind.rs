//! What a kind of object is, and all that is particular to it: every other part of the server asks here, and none by
//! name.

use std::fmt;

use serde_json::Value;

use crate::causes::Causes;

/// One kind of object, in one version.
pub(crate) struct Kind {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// Version inside the group.
    pub(crate) version: &'static str,
    /// `Pod`.
    pub(crate) kind: &'static str,
    /// `pods`.
    pub(crate) plural: &'static str,
    /// `pod`.
    pub(crate) singular: &'static str,
    /// Short names kubectl accepts.
    pub(crate) short: &'static [&'static str],
    /// Subresources, as in the path.
    pub(crate) subresources: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub(crate) categories: &'static [&'static str],
    /// Objects live in a namespace.
    pub(crate) namespaced: bool,
    /// Where its objects are kept.
    pub(crate) storage: Storage,
    /// A change outside metadata and status raises `metadata.generation`.
    pub(crate) generation: bool,
    /// An update must say which version it replaces.
    pub(crate) needs_version: bool,
    /// A new object keeps the status that it comes with.
    pub(crate) status_at_creation: bool,
    /// Who writes the status may note things in annotations: a Deployment's revision, say.
    pub(crate) status_annotates: bool,
    /// Annotations count for the generation too.
    pub(crate) annotations_count: bool,
    /// The garbage collector watches its owners, and takes its own finalizers off again.
    pub(crate) collected: bool,
    /// No more of them than this.
    pub(crate) most: usize,
    /// What is done with its objects.
    pub(crate) does: Does,
}

/// What is particular to the objects of a kind. Source: Kubernetes 1.34, where each part says so.
#[derive(Clone, Copy)]
pub(crate) struct Does {
    /// As its type keeps it: without nulls and unknown fields; else what can't be decoded, in Go's words.
    pub(crate) decode: fn(&Value) -> Result<Value, String>,
    /// Before it is decoded.
    pub(crate) before_decoding: fn(&mut Value),
    /// Times with microseconds, by pointers.
    pub(crate) micro_times: &'static [&'static str],
    /// Times of a condition that are written although nobody set them.
    pub(crate) condition_times: &'static [&'static str],
    /// What Go's type writes although nobody set it; the first is what was given.
    pub(crate) complete: fn(&Value, &mut Value),
    /// What is in every object of the kind, although it says nothing.
    pub(crate) blank: fn(&mut Value),
    /// Fills in what was left out.
    pub(crate) defaults: fn(&mut Value),
    /// Fills in what admission and storage add, which belongs to no writer.
    pub(crate) admit: fn(&mut Value),
    /// Keeps of the old object what the server gave out and an update may leave out.
    pub(crate) carry_over: fn(&Value, &mut Value),
    /// Takes away what only the old object's type had.
    pub(crate) drop_dependent: fn(&Value, &mut Value),
    /// What its name must be.
    pub(crate) name: Name,
    /// Everything wrong with it beside its metadata; the second is what it replaces.
    pub(crate) validate: fn(&Value, Option<&Value>, &mut Causes),
    /// Fields that selectors can name, beside its name and namespace.
    pub(crate) selectable: &'static [&'static str],
    /// Lists that merge otherwise than their names say: parent, field, and how.
    pub(crate) lists: &'static [(&'static str, &'static str, Merge)],
    /// The seconds that it has to end in; the second is what was asked for.
    pub(crate) grace: fn(&Value, Option<i64>) -> i64,
    /// Columns of `kubectl get`, and how to fill them.
    pub(crate) columns: Columns,
    /// Those of them that are numbers.
    pub(crate) integer_columns: &'static [&'static str],
    /// The condition that its row carries.
    pub(crate) row_condition: fn(&Value) -> Option<Value>,
    /// A stored object as this version shows it.
    pub(crate) show: fn(&Value) -> Value,
    /// An object of this version as it is stored.
    pub(crate) store: fn(Value) -> Value,
}

/// Where the objects of a kind are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Under its own group and plural.
    Own,
    /// A view of the objects of another kind (group, plural), converted on the way in and out.
    ViewOf(&'static str, &'static str),
    /// Nowhere: computed for each request.
    Computed,
}

/// What a name must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// Labels (RFC 1123) with dots between them.
    Subdomain,
    /// One label.
    Label,
    /// One label that begins with a letter.
    Service,
    /// Whatever can stand in a path.
    Any,
}

/// The columns of a kind and how to fill them.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Name, and whether only `-o wide` shows it.
    pub(crate) names: &'static [(&'static str, bool)],
    pub(crate) cells: fn(&Value) -> Vec<Value>,
}

/// How a list or map is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Replaced whole.
    Atomic,
    /// Field by field (maps).
    Granular,
    /// A list whose items are told apart by these fields.
    Keyed(&'static [&'static str]),
    /// A list of distinct values.
    Set,
}

impl Does {
    /// Nothing is particular to it but what it is made of and how it is shown.
    pub(crate) const fn plain(decode: fn(&Value) -> Result<Value, String>, columns: Columns) -> Does {
        Does {
            decode,
            before_decoding: |_| {},
            micro_times: &[],
            condition_times: &[],
            complete: |_, _| {},
            blank: |_| {},
            defaults: |_| {},
            admit: |_| {},
            carry_over: |_, _| {},
            drop_dependent: |_, _| {},
            name: Name::Subdomain,
            validate: |_, _, _| {},
            selectable: &[],
            lists: &[],
            grace: |_, _| 0,
            columns,
            integer_columns: &[],
            row_condition: |_| None,
            show: Value::clone,
            store: |object| object,
        }
    }
}

impl Kind {
    /// `apps/v1`, or `v1` in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods`: how errors name the resource.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Deployment.apps`, or `Pod`: how validation errors name the kind.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// `core`, `apps`: the Go package that errors name.
    pub(crate) fn package(&self) -> &'static str {
        match self.group {
            "" | "events.k8s.io" => "core",
            group => group.split('.').next().unwrap_or(group),
        }
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Verbs as discovery lists them.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match (self.storage, self.group) {
            (Storage::Computed, "metrics.k8s.io") => &["get", "list"],
            (Storage::Computed, _) => &["create"],
            _ => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.kind, self.api_version())
    }
}
