"""Checks a mesh-audit log with nothing but the format's description.

    verify.py LOG [HEX_KEY]
"""
import hashlib, hmac, json, sys

path, key = sys.argv[1], bytes.fromhex(sys.argv[2]) if len(sys.argv) > 2 else None
prev, seq = "0" * 64, 0
for number, line in enumerate(open(path, "rb"), 1):
    assert line.endswith(b'"}\n'), f"line {number}: torn"
    sealed = line[:-76] + b"}"  # the LF and the hash member gone, the brace put back
    digest = hmac.new(key, sealed, hashlib.sha256).hexdigest() if key else hashlib.sha256(sealed).hexdigest()
    record = json.loads(line)
    assert line[-76:] == f',"hash":"{digest}"}}\n'.encode(), f"line {number}: bad hash"
    assert (record["prev"], record["seq"]) == (prev, seq + 1), f"line {number}: broken chain"
    prev, seq = digest, seq + 1
print(f"{seq}:{prev}")
