public import CUSAE
import USAE

// Properties of an autoencoder. The library keeps them outside the lock, so nothing here waits for a step.

/// The object behind a handle; nil for NULL.
private func find(_ handle: OpaquePointer?) -> UniversalSAE? { try? UniversalSAE.at(handle) }

@c @implementation
public func usae_concepts(_ sae: OpaquePointer?) -> Int64 { Int64(find(sae)?.concepts ?? 0) }

@c @implementation
public func usae_k(_ sae: OpaquePointer?) -> Double { find(sae)?.k ?? 0 }

@c @implementation
public func usae_slots(_ sae: OpaquePointer?) -> Int64 { Int64(find(sae)?.slots ?? 0) }

@c @implementation
public func usae_seed(_ sae: OpaquePointer?) -> UInt64 { find(sae)?.seed ?? 0 }

@c @implementation
public func usae_step_count(_ sae: OpaquePointer?) -> Int64 { Int64(find(sae)?.stepCount ?? 0) }

@c @implementation
public func usae_model_count(_ sae: OpaquePointer?) -> Int32 { Int32(find(sae)?.modelNames.count ?? 0) }

@c @implementation
public func usae_model_width(_ sae: OpaquePointer?, _ model: Int32) -> Int64 {
  guard let widths = find(sae)?.widths, widths.indices.contains(Int(model)) else { return 0 }
  return Int64(widths[Int(model)])
}

@c @implementation
public func usae_model_name(
  _ sae: OpaquePointer?, _ model: Int32, _ name: UnsafeMutablePointer<CChar>?, _ capacity: Int64
) -> Int64 {
  guard let names = find(sae)?.modelNames, names.indices.contains(Int(model)) else { return 0 }
  if let name, capacity > 0 {
    write(names[Int(model)], to: UnsafeMutableRawBufferPointer(start: name, count: Int(capacity)))
  }
  return Int64(names[Int(model)].utf8.count + 1)
}

@c @implementation
public func usae_current_recipe(
  _ sae: OpaquePointer?, _ recipe: UnsafeMutablePointer<usae_recipe>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try Output(try required(recipe, "recipe"), "recipe")
    out.write(usae_recipe(try UniversalSAE.at(sae).recipe))
  }
}
