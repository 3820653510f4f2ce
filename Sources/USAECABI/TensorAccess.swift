public import CUSAE
import USAE

private func tensor(_ number: Int32) throws(USAEError) -> TensorID {
  guard let id = TensorID(number) else {
    throw .invalidArgument(name: "tensor", expected: "a tensor number of usae.h", got: "\(number)")
  }
  return id
}

@c @implementation
public func usae_tensor_shape(
  _ sae: OpaquePointer?, _ model: Int32, _ tensor: Int32, _ rows: UnsafeMutablePointer<Int64>?,
  _ columns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let rows = try required(rows, "rows")
    let columns = try required(columns, "columns")
    let shape = try UniversalSAE.at(sae).tensorShape(model: Int(model), try USAECABI.tensor(tensor))
    (rows.pointee, columns.pointee) = (Int64(shape.rows), Int64(shape.columns))
  }
}

@c @implementation
public func usae_tensor_read(
  _ sae: OpaquePointer?, _ model: Int32, _ tensor: Int32, _ data: UnsafeMutableRawPointer?, _ count: Int64,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    try UniversalSAE.at(sae).readTensor(
      model: Int(model), try USAECABI.tensor(tensor), to: try required(data, "data"), count: Int(count))
  }
}

@c @implementation
public func usae_tensor_write(
  _ sae: OpaquePointer?, _ model: Int32, _ tensor: Int32, _ data: UnsafeRawPointer?, _ count: Int64,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    try UniversalSAE.at(sae).writeTensor(
      model: Int(model), try USAECABI.tensor(tensor), from: try required(data, "data"), count: Int(count))
  }
}

@c @implementation
public func usae_set_step_count(
  _ sae: OpaquePointer?, _ step: Int64, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in try UniversalSAE.at(sae).setStepCount(Int(step)) }
}
