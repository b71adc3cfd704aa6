# Installs otrproxy as a service of Windows, from an administrator's PowerShell:
#   powershell -ExecutionPolicy Bypass -File install.ps1
# It runs as an account of its own with no rights on the machine (NT SERVICE\otrproxy), which
# alone may read the directory with the keys. To remove it: install.ps1 -Remove (the keys stay).
param([switch]$Remove)
$ErrorActionPreference = 'Stop'
$program = Join-Path $env:ProgramFiles 'otrproxy\otrproxy.exe'
$data = Join-Path $env:ProgramData 'otrproxy'
if ($Remove) {
    sc.exe stop otrproxy | Out-Null
    sc.exe delete otrproxy
    Remove-Item -Recurse (Split-Path $program)
    exit
}
New-Item -ItemType Directory -Force (Split-Path $program), $data | Out-Null
Copy-Item (Join-Path $PSScriptRoot 'otrproxy.exe') $program -Force
$config = Join-Path $data 'otrproxy.yaml'
if (-not (Test-Path $config)) { Copy-Item (Join-Path $PSScriptRoot 'otrproxy.yaml') $config }
sc.exe create otrproxy binPath= "`"$program`" run --config `"$config`"" start= auto obj= 'NT SERVICE\otrproxy' DisplayName= 'otrproxy'
sc.exe description otrproxy 'End-to-end encryption (OTR) and a pinned server connection for XMPP clients'
sc.exe failure otrproxy reset= 86400 actions= restart/2000/restart/10000/restart/60000
icacls.exe $data /inheritance:r /grant 'NT SERVICE\otrproxy:(OI)(CI)F' 'SYSTEM:(OI)(CI)F' 'Administrators:(OI)(CI)F'
sc.exe start otrproxy
