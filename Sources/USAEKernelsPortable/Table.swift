import USAEKernelTypes

#if USAE_AVX512
  private let name: StaticString = "avx512"
#elseif USAE_AVX2
  private let name: StaticString = "avx2"
#else
  private let name: StaticString = "portable"
#endif

@inline(never)
public func kernelTable() -> KernelTable {
  KernelTable(
    name: name, tokensPerBlock: tokensPerBlock, panelWidth: panelWidth,
    product: { product($0, $1, $2, $3, $4, $5, $6) }, packTokens: { packTokens($0, $1, $2, $3, $4) },
    packPanel: { packPanel($0, $1, $2, $3, $4, $5) }, scan: { scan($0, $1, $2, $3) },
    partition: { partition($0, $1, $2) }, sortDescending: { sortDescending($0, $1) },
    weightedRows: { weightedRows($0, $1, $2, $3, $4, $5, $6) }, dots: { dots($0, $1, $2, $3, $4, $5, $6) },
    dot: { dot($0, $1, $2) }, addScaled: { addScaled($0, $1, $2, $3) }, subtractFrom: { subtractFrom($0, $1, $2) },
    loss: { loss($0, $1, $2) }, slope: { slope($0, $1, $2, $3, $4) }, adam: { adam($0, $1, $2, $3, $4, $5) },
    standardizeFloat32: { standardizeFloat32($0, $1, $2, $3, $4) },
    standardizeFloat16: { standardizeFloat16($0, $1, $2, $3, $4) },
    standardizeFloat64: { standardizeFloat64($0, $1, $2, $3, $4) },
    standardizeBFloat16: { standardizeBFloat16($0, $1, $2, $3, $4) })
}
