"""Back pressure, as arithmetic: it reads no clock and touches no engine.

`meter` turns samples of a queue into a pace, `pace` foretells waits, `slots` spaces those
who are refused, `ticket` signs the place they were given.
"""
