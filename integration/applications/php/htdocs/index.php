<?php
// A page by Twig, whose libraries lie in vendor/.
require __DIR__ . '/../vendor/autoload.php';

$twig = new Twig\Environment(new Twig\Loader\ArrayLoader([
    'page' => "<!doctype html><title>PHP</title><p>{{ path }} by Twig {{ twig }}, asked by {{ scheme }}, {{ greeting|upper }}</p>\n",
]));
$data = new PDO('sqlite::memory:');
echo $twig->render('page', [
    'path' => parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH),
    'twig' => Twig\Environment::VERSION,
    'scheme' => empty($_SERVER['HTTPS']) ? 'http' : 'https',
    'greeting' => $data->query("SELECT 'hello'")->fetchColumn(),
]);
