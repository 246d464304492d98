//! Floating-point numbers inside objects and lists: stores hold these as JSON, which has no NaN, no infinity and one
//! zero. So NaN and infinities in them are NULL, and `-0.0` is `0.0`, before anything is grouped by them.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericListArray, MapArray, OffsetSizeTrait, PrimitiveArray,
        StructArray,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type},
    error::ArrowError,
};
use datafusion::{
    common::{DFSchema, Result},
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};

/// The type of [`within`]: floating-point fields of objects and items of lists may be NULL.
pub fn type_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::List(field_of(item)),
        DataType::LargeList(item) => DataType::LargeList(field_of(item)),
        DataType::Map(entries, sorted) => DataType::Map(field_of(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field_of).collect()),
        other => other.clone(),
    }
}

fn field_of(field: &FieldRef) -> FieldRef {
    if !holds_floats(field.data_type()) {
        return Arc::clone(field);
    }
    let nullable = field.is_nullable() || field.data_type().is_floating();
    Arc::new(Field::clone(field).with_data_type(type_of(field.data_type())).with_nullable(nullable))
}

fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => holds_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        other => other.is_floating(),
    }
}

fn holds_floats_within(data_type: &DataType) -> bool {
    data_type.is_nested() && holds_floats(data_type)
}

/// The column with NaN and infinities inside its objects and lists as NULL. A plain number stays as it is.
pub fn within(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if holds_floats_within(column.data_type()) { finite(column) } else { Ok(Arc::clone(column)) }
}

fn finite(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match column.data_type() {
        DataType::Float64 => {
            floats(column.as_primitive::<Float64Type>(), |value| value.is_finite().then_some(value + 0.0))
        }
        DataType::Float32 => {
            floats(column.as_primitive::<Float32Type>(), |value| value.is_finite().then_some(value + 0.0))
        }
        DataType::List(item) => list(column.as_list::<i32>(), item)?,
        DataType::LargeList(item) => list(column.as_list::<i64>(), item)?,
        DataType::Map(entries, sorted) => {
            let map = column.as_map();
            let (offsets, from, to) = rebased(map.offsets());
            let inside: ArrayRef = Arc::new(map.entries().slice(from, to - from));
            let nulls = map.nulls().cloned();
            let inside = finite(&inside)?.as_struct().clone();
            Arc::new(MapArray::try_new(field_of(entries), offsets, inside, nulls, *sorted)?)
        }
        DataType::Struct(fields) => {
            let object = column.as_struct();
            let columns = object.columns().iter().map(finite).collect::<Result<_, _>>()?;
            let fields = fields.iter().map(field_of).collect();
            Arc::new(StructArray::try_new_with_length(fields, columns, object.nulls().cloned(), object.len())?)
        }
        _ => Arc::clone(column),
    })
}

fn floats<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    finite: impl Fn(T::Native) -> Option<T::Native>,
) -> ArrayRef {
    Arc::new(values.unary_opt::<_, T>(finite))
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let (offsets, from, to) = rebased(list.offsets());
    let items = finite(&list.values().slice(from, to - from))?;
    Ok(Arc::new(GenericListArray::try_new(field_of(item), offsets, items, list.nulls().cloned())?))
}

/// The offsets from 0 on, and the range of items that they spoke of: a slice of a column shares the items of all its rows.
fn rebased<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (OffsetBuffer<O>, usize, usize) {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let offsets = offsets.iter().map(|offset| *offset - first).collect::<Vec<_>>();
    (OffsetBuffer::new(offsets.into()), first.as_usize(), last.as_usize())
}

/// The groups of an aggregate over rows of `schema`: [`within`] of those that hold floating-point numbers.
pub fn in_groups(groups: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let finite_one = |group: Expr| {
        if !holds_floats_within(&group.get_type(schema)?) {
            return Ok(group);
        }
        Ok(ScalarUDF::new_from_impl(Finite { signature: Signature::any(1, Volatility::Immutable) }).call(vec![group]))
    };
    groups.into_iter().map(finite_one).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Finite {
    signature: Signature,
}

impl ScalarUDFImpl for Finite {
    fn name(&self) -> &'static str {
        "__finite"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(type_of(&types[0]))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Array(within(&args.args[0].to_array(args.number_rows)?)?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, ListArray};

    use super::*;

    #[test]
    fn only_numbers_inside_objects_and_lists_become_null() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let plain: ArrayRef = Arc::new(Float64Array::from(vec![nan, inf, -0.0]));
        assert_eq!(&within(&plain).unwrap(), &plain);
        let items = vec![Some(vec![Some(nan), Some(1.5)]), None, Some(vec![Some(-inf), Some(-0.0)])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(items));
        let field = Arc::new(Field::new("list", lists.data_type().clone(), true));
        let rate = Arc::new(Field::new("rate", DataType::Float64, false));
        let object: ArrayRef = Arc::new(StructArray::from(vec![(rate, Arc::clone(&plain)), (field, lists)]));
        let cleaned = within(&object).unwrap();
        assert_eq!(cleaned.data_type(), &type_of(object.data_type()));
        let rates: Vec<_> = cleaned.as_struct().column(0).as_primitive::<Float64Type>().iter().collect();
        assert_eq!(rates, [None, None, Some(0.0)]);
        let lists = cleaned.as_struct().column(1).as_list::<i32>();
        let items: Vec<_> = lists.values().as_primitive::<Float64Type>().iter().collect();
        assert_eq!(items, [None, Some(1.5), None, Some(0.0)]);
        assert!(items[3].is_some_and(f64::is_sign_positive));
    }

    #[test]
    fn a_slice_costs_its_own_items_only() {
        let lists =
            ListArray::from_iter_primitive::<Float64Type, _, _>((0..100).map(|n| Some(vec![Some(f64::from(n))])));
        let slice: ArrayRef = Arc::new(lists.slice(40, 2));
        let cleaned = within(&slice).unwrap();
        assert_eq!(&cleaned, &slice);
        assert_eq!(cleaned.as_list::<i32>().values().len(), 2);
    }
}
