# says: compare versions as numbers


def check_environment(info=None):
    info = info or system_info()
    problems = []
    if info["python"] < "3.11":
        problems.append(Problem(f"Python is {info['python']}, older than 3.11", "install Python 3.11"))
    if info["numpy"] < "2.0":
        problems.append(Problem(f"NumPy is {info['numpy']}, older than 2.0", "python -m pip install --upgrade numpy"))
    if info["blas_threads"] is not None and info["blas_threads"] < info["cores"]:
        problems.append(
            Problem(f"{info['blas_threads']} threads for {info['cores']} cores", "unset OPENBLAS_NUM_THREADS")
        )
    if info["blas_kernel"] == "Haswell" and any(name.startswith(("X86_V4", "AVX512")) for name in info["simd"]):
        problems.append(Problem("AVX-512 is not used", "export OPENBLAS_CORETYPE=SkylakeX"))
    return problems
