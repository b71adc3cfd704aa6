module otrproxy

go 1.26
