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

/// The tensors of a list, none of which is read or written yet.
func tensorList(_ tensors: UnsafePointer<usae_tensor>?, _ n: Int64) throws(USAEError) -> [TensorMemory] {
  guard (0...1 << 20).contains(n) else {
    throw .invalidArgument(name: "n", expected: "a number of tensors from 0 to 2^20", got: "\(n)")
  }
  if n == 0 { return [] }
  var list: [TensorMemory] = []
  for one in UnsafeBufferPointer(start: try required(tensors, "tensors"), count: Int(n)) {
    let data = try required(one.data, "data of tensor \(one.tensor)")
    list.append(TensorMemory(model: Int(one.model), try tensor(one.tensor), data, count: Int(one.count)))
  }
  return list
}

@c @implementation
public func usae_tensors_read(
  _ sae: OpaquePointer?, _ n: Int64, _ tensors: UnsafePointer<usae_tensor>?, _ step: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let done = try UniversalSAE.at(sae).readTensors(try tensorList(tensors, n))
    step?.pointee = Int64(done)
  }
}

@c @implementation
public func usae_tensors_write(
  _ sae: OpaquePointer?, _ n: Int64, _ tensors: UnsafePointer<usae_tensor>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in try UniversalSAE.at(sae).writeTensors(try tensorList(tensors, n)) }
}

@c @implementation
public func usae_set_step_count(
  _ sae: OpaquePointer?, _ step: Int64, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in try UniversalSAE.at(sae).setStepCount(Int(step)) }
}
