//! The fields that an object's type has, for a name that is not among them. The API's types know theirs: they name them
//! to whatever they are read from.

use std::fmt;

use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy, rbac};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer,
};

use crate::manifests::Object;

type Names = &'static [&'static str];

/// The known field nearest to `name` in what `pointer` leads to.
pub(super) fn nearest(object: &Object, pointer: &str, name: &str) -> Option<&'static str> {
    let known = known(object, pointer)?;
    let distance = |field: &&&str| strsim::damerau_levenshtein(&field.to_lowercase(), &name.to_lowercase());
    let near = known.iter().min_by_key(distance)?;
    // What has hardly a letter in common was not meant.
    (distance(&near) <= (name.len() / 3).max(1)).then_some(*near)
}

fn known(object: &Object, pointer: &str) -> Option<Names> {
    let steps: Vec<&str> = pointer.split('/').filter(|step| !step.is_empty()).collect();
    let of = match (object.group(), object.kind.as_str()) {
        ("", "ConfigMap") => fields::<core::v1::ConfigMap>,
        ("", "PersistentVolumeClaim") => fields::<core::v1::PersistentVolumeClaim>,
        ("", "Pod") => fields::<core::v1::Pod>,
        ("", "Secret") => fields::<core::v1::Secret>,
        ("", "Service") => fields::<core::v1::Service>,
        ("", "ServiceAccount") => fields::<core::v1::ServiceAccount>,
        ("apps", "DaemonSet") => fields::<apps::v1::DaemonSet>,
        ("apps", "Deployment") => fields::<apps::v1::Deployment>,
        ("apps", "StatefulSet") => fields::<apps::v1::StatefulSet>,
        ("autoscaling", "HorizontalPodAutoscaler") => fields::<autoscaling::v2::HorizontalPodAutoscaler>,
        ("batch", "CronJob") => fields::<batch::v1::CronJob>,
        ("batch", "Job") => fields::<batch::v1::Job>,
        ("networking.k8s.io", "Ingress") => fields::<networking::v1::Ingress>,
        ("networking.k8s.io", "NetworkPolicy") => fields::<networking::v1::NetworkPolicy>,
        ("policy", "PodDisruptionBudget") => fields::<policy::v1::PodDisruptionBudget>,
        ("rbac.authorization.k8s.io", "Role") => fields::<rbac::v1::Role>,
        ("rbac.authorization.k8s.io", "RoleBinding") => fields::<rbac::v1::RoleBinding>,
        _ => return None,
    };
    of(&steps)
}

fn fields<T: for<'de> Deserialize<'de>>(steps: &[&str]) -> Option<Names> {
    let mut found = None;
    let _ = T::deserialize(Walk { steps, found: &mut found });
    found
}

/// Offers a type nothing but the way to a field, and notes what the type at its end says of itself.
struct Walk<'w> {
    steps: &'w [&'w str],
    found: &'w mut Option<Names>,
}

/// The walk has seen what it went for, or can't go on.
#[derive(Debug)]
struct End;

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the way")
    }
}

impl std::error::Error for End {}

impl de::Error for End {
    fn custom<T: fmt::Display>(_: T) -> End {
        End
    }
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = End;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: Names,
        visitor: V,
    ) -> Result<V::Value, End> {
        if self.steps.is_empty() {
            *self.found = Some(fields);
            return Err(End);
        }
        visitor.visit_map(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        if self.steps.is_empty() { Err(End) } else { visitor.visit_map(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        if self.steps.is_empty() { Err(End) } else { visitor.visit_seq(self) }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, End> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, End> {
        Err(End)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Walk<'_> {
    type Error = End;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, End> {
        let step = self.steps.first().ok_or(End)?;
        seed.deserialize(StrDeserializer::new(step)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, End> {
        let (_, rest) = self.steps.split_first().ok_or(End)?;
        seed.deserialize(Walk { steps: rest, found: self.found })
    }
}

impl<'de> SeqAccess<'de> for Walk<'_> {
    type Error = End;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, End> {
        let (_, rest) = self.steps.split_first().ok_or(End)?;
        seed.deserialize(Walk { steps: rest, found: self.found }).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_names_its_fields_at_any_depth() {
        let pod = fields::<apps::v1::Deployment>(&["spec", "template", "spec"]).expect("a pod's fields");
        assert!(pod.contains(&"terminationGracePeriodSeconds"), "{pod:?}");
        let probe =
            fields::<apps::v1::Deployment>(&["spec", "template", "spec", "containers", "0", "livenessProbe"]);
        assert!(probe.is_some_and(|probe| probe.contains(&"periodSeconds")));
        assert!(fields::<core::v1::Service>(&[]).is_some_and(|fields| fields.contains(&"spec")));
        assert_eq!(fields::<core::v1::Service>(&["nothing", "there"]), None);
        assert_eq!(fields::<core::v1::ConfigMap>(&["data", "a", "b"]), None);
    }
}
